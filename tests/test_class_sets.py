"""Any classes, from labels to scores: a run says them once, its checkpoint carries them."""

import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

import eval as eval_script
from dataset.class_set_file import class_set_of, load_class_set
from dataset.gta5 import gta5_tree
from dataset.label_format import fitting_format
from dataset.label_io import LabelValuesError
from dataset.listing_check import check_listing, has_class
from dataset.prepared.build import prepare
from dataset.prepared.job import PrepareJob
from dataset.source import labelled_images
from scripts import make_pseudo_labels
from scripts.predict import __main__ as predict
from tests.helpers.cli import run_train, run_train_da
from utils.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.usefixtures("narrow_networks")
MERGED = """
based_on = "cityscapes19"
ignored = ["pole", "traffic light", "traffic sign", "sky"]
[merge]
flat = ["road", "sidewalk"]
built = ["building", "wall", "fence"]
nature = ["vegetation", "terrain"]
human = ["person", "rider"]
vehicle = ["car", "truck", "bus", "train", "motorcycle", "bicycle"]
"""
NAMES = ["flat", "built", "nature", "human", "vehicle"]
SELF_TRAINING = ("--method", "self-training", "--pixel-weights", "class", "--rare-class-sampling")


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    path = tmp_path_factory.mktemp("sets") / "merged.toml"
    path.write_text(MERGED, encoding="utf-8")
    return path


@pytest.fixture
def masks(tmp_path):
    """Ten images in two folders, with 0/255 masks: a data set of nobody's layout."""
    rng = np.random.default_rng(0)
    for folder, count in (("source/images", 6), ("source/labels", 6), ("target", 4)):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(count):
            label = np.zeros((64, 96), np.uint8)
            label[20 + number :, 10:60] = 255
            image = np.where(label[..., None] > 0, (90, 90, 100), (40, 160, 60)).astype(np.uint8)
            noisy = np.clip(image + rng.normal(0, 9, image.shape), 0, 255).astype(np.uint8)
            is_label = folder.endswith("labels")
            Image.fromarray(label if is_label else noisy).save(tmp_path / folder / f"{number}.png")
    return tmp_path


def score(*words) -> None:
    eval_script.main(eval_script.parse_arguments(list(map(str, words))))


@pytest.mark.parametrize(
    "method", [("--discriminator", "light", "--lab"), SELF_TRAINING], ids=["light", "self-training"]
)
def test_merged_classes_from_training_to_scores(
    merged, method, gta5_root, cityscapes_root, tmp_path, capsys
):
    """Networks, losses, mixing, weights and scores have the five classes; no later flag says so."""
    data = ("--gta5", gta5_root, "--cityscapes", cityscapes_root, "--class-set", merged)
    run = run_train_da(tmp_path, *data, *method, "--lab-class-balanced", "--lab", "--max-steps", 2)
    content = read_checkpoint(run / "last.pt")
    assert content["class_set"]["classes"] == NAMES
    assert content["architecture"]["num_classes"] == 5
    assert content["architecture"]["fusion_channels"] == 64
    capsys.readouterr()
    scores = tmp_path / "scores.json"
    score(run / "last.pt", "--cityscapes", cityscapes_root, "--device", "cpu", "--json", scores)
    printed = capsys.readouterr().out
    assert "| IoU, % | flat | built | nature | human | vehicle |" in printed
    assert "(published)" not in printed
    found = json.loads(scores.read_text(encoding="utf-8"))
    assert found["classes"] == NAMES
    assert np.shape(found["rows"][0]["matrix"]) == (5, 5)


def test_binary_masks_in_ones_own_folders(masks, capsys, monkeypatch):
    """0/255 masks, a folder as target; eval gives the IoU of each class; predict its colors."""
    data = ("--source", masks / "source", "--target", masks / "target", "--class-set", "binary")
    run = run_train_da(masks / "out", *data, "--source-layout", "folders", "--max-steps", 2)
    capsys.readouterr()
    score(run / "last.pt", "--source", masks / "source", "--layout", "folders", "--device", "cpu")
    assert "| IoU, % | background | foreground |" in capsys.readouterr().out
    words = [masks / "target", "--model", run / "last.pt", "--output", masks / "maps"]
    words += ["--save", "trainIds", "color", "--device", "cpu", "--no-legend"]
    predict.main(predict.parse_arguments(list(map(str, words))))
    train_ids = np.asarray(Image.open(masks / "maps/0_trainIds.png"))
    picture = np.asarray(Image.open(masks / "maps/0_color.png"))
    assert set(np.unique(train_ids)) <= {0, 1}
    colors = np.array([[70, 70, 70], [128, 64, 128]])
    assert np.array_equal(picture, colors[train_ids])
    with pytest.raises(ValueError, match="--save labelIds: .* binary, which have no labelIds"):
        predict.main(predict.parse_arguments([*map(str, words[:5]), "--save", "labelIds"]))


def test_a_data_set_of_one_split_scores_other_images(masks):
    """Its only split is trained on: two lists make two sets of it, one image in both is refused."""
    own = ("--target-layout", "folders", "--class-set", "binary", "--validate-every", 1)
    flags = ("--target", masks / "source", *own, "--max-steps", 1)
    with pytest.raises(ValueError, match="score 6 images that the run trains on.*the one split"):
        run_train(masks / "a", "--train-on", "target", *flags)
    (masks / "train.txt").write_text("0\n1\n2\n3\n", "utf-8")
    (masks / "val.txt").write_text("3\n4\n5\n", "utf-8")
    lists = ("--target-list", masks / "train.txt", "--val-list", masks / "val.txt")
    source = ("--source", masks / "source", "--source-layout", "folders")
    source += ("--source-list", masks / "train.txt")
    with pytest.raises(ValueError, match="score 1 images that the run trains on, the first 3"):
        run_train_da(masks / "b", *source, *flags, *lists)
    (masks / "val.txt").write_text("4\n5\n", "utf-8")
    run = run_train(
        *(masks / "c", "--train-on", "target", *flags, "--list", masks / "train.txt", *lists[2:])
    )
    assert (run / "best.pt").exists()


def test_pseudo_labels_have_the_classes_of_their_network(masks, monkeypatch):
    """They train a network of these classes, and are refused by a run of others."""
    data = ("--source", masks / "source", "--source-layout", "folders", "--class-set", "binary")
    run = run_train(masks / "out", "--train-on", "source", *data, "--max-steps", 1)
    words = [run / "last.pt", "--target", masks / "target", "--output", masks / "pseudo"]
    words += ["--device", "cpu", "--workers", 0, "--keep", 1]
    monkeypatch.setattr(sys, "argv", ["make_pseudo_labels"])
    make_pseudo_labels.main(make_pseudo_labels.parse_arguments(list(map(str, words))))
    labels = sorted((masks / "pseudo").rglob("*_gtFine_labelTrainIds.png"))
    assert len(labels) == 4
    assert set(np.unique(np.asarray(Image.open(labels[0])))) <= {0, 1}
    target = ("--target", masks / "target", "--method", "pseudo-labels")
    target += ("--pseudo-labels", masks / "pseudo", "--max-steps", 1)
    run_train_da(masks / "taught", *data, *target)
    other = masks / "other.toml"
    other.write_text(
        'classes = ["off", "on"]\n[encodings.mask]\nread = "index"\nclasses = {off = 0, on = 255}',
        encoding="utf-8",
    )
    with pytest.raises(
        ValueError, match="have the classes background, foreground; this run has off"
    ):
        run_train_da(masks / "x", *data[:4], "--class-set", other, *target)


def test_other_classes_end_a_resume_and_a_table(merged, gta5_root, cityscapes_root, tmp_path):
    """Changed classes are named before and now; scores of two class sets share no table."""
    own = tmp_path / "own.toml"
    shutil.copy(merged, own)
    data = ("--train-on", "source", "--gta5", gta5_root)
    run = run_train(tmp_path, *data, "--class-set", own, "--max-steps", 1)
    own.write_text(MERGED.replace("human", "people"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"classes: own \(flat.*human.*\) -> own \(flat.*people"):
        run_train(tmp_path, *data, "--class-set", own, "--max-steps", 2, "--resume")
    full = run_train(tmp_path / "full", *data, "--max-steps", 1)
    networks = [run / "last.pt", full / "last.pt"]
    with pytest.raises(ValueError, match="cannot stand in one table"):
        score(*networks, "--cityscapes", cityscapes_root, "--device", "cpu")
    words = [gta5_root / "images", "--compare", *networks, "--output", tmp_path / "c"]
    with pytest.raises(ValueError, match="one picture cannot show both"):
        predict.main(predict.parse_arguments([*map(str, words), "--device", "cpu"]))


def test_labels_that_the_class_set_does_not_name(masks, tmp_path):
    """Before the first step, with the file, the value and its share."""
    sets = tmp_path / "wrong.toml"
    sets.write_text(
        'classes = ["a", "b"]\n[encodings.ids]\nread = "index"\nclasses = {a = 0, b = 1}',
        encoding="utf-8",
    )
    data = ("--source", masks / "source", "--target", masks / "target", "--class-set", sets)
    with pytest.raises(ValueError, match=r"labels/0\.png has values .* does not name: 255 on \d"):
        run_train_da(tmp_path / "out", *data, "--source-layout", "folders", "--max-steps", 1)
    assert not (tmp_path / "out/run/last.pt").exists()


def test_labelids_that_the_class_set_does_not_name(gta5_root, tmp_path):
    """Neither a class nor ignored: refused in raw labels and in prepared ones, with the value."""
    sets = tmp_path / "two.toml"
    text = 'classes = ["road", "car"]\n[encodings.labelIds]\nread = "cityscapes"\n'
    sets.write_text(text + "ignored = [0, 1, 2, 3]\nclasses = {road = 7, car = 26}", "utf-8")
    two = load_class_set(sets)
    raw = labelled_images(gta5_root, class_set=two)
    with pytest.raises(LabelValuesError, match=r"00001\.png has values .* does not name: 8 on"):
        check_listing(raw)
    with pytest.raises(ValueError, match="fit no encoding of the class set two"):
        fitting_format(two, [raw[0].label], gta5_root)
    prepare(PrepareJob(gta5_tree(gta5_root), "gta5"), tmp_path / "p", "")
    prepared = labelled_images(tmp_path / "p", class_set=two)
    assert not has_class([11], prepared.label_format)
    with pytest.raises(ValueError, match="does not name: 8, 11, .*Add them to a class"):
        check_listing(prepared)
    named = load_class_set("cityscapes19")
    edited = class_set_of(named.as_dict(), "x", "x")
    edited.encodings["labelIds"].classes["car"] = (26, 34)
    check_listing(labelled_images(tmp_path / "p", class_set=edited))
