"""scripts/make_pseudo_labels.py: selected pixels, unopened labels, interruption, bad input."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.cityscapes import cityscapes
from dataset.class_set_file import load_class_set
from dataset.demo.scene import CAMERA, street
from dataset.image_io import read_image
from dataset.label_io import read_label
from dataset.labels import CLASS_NAMES, LABEL_ID_OF, TRAIN_ID_OF
from dataset.listing_check import check_listing
from dataset.pseudo_labels import label_path, label_record, with_labels
from dataset.unlabelled import unlabelled_images
from model.inference.predictor import Predictor
from model.loading import load_network
from scripts import make_pseudo_labels as entry
from scripts.prepare import main as prepare
from scripts.prepare import parse_arguments as prepare_arguments
from tests.helpers.networks import write_checkpoint
from utils.benchmark import memory
from utils.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.usefixtures("narrow_networks")

COMMON = ["--workers", "0", "--device", "cpu", "--precision", "fp32"]


def make(*arguments):
    entry.main(entry.parse_arguments([*map(str, arguments), *COMMON]))


def record(root, split="train"):
    return json.loads((root / f"pseudo_labels-{split}.json").read_text())


def files(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.png"))
    }


@pytest.fixture
def checkpoint(tmp_path):
    return write_checkpoint(tmp_path / "run/last.pt", "teacher")


def predictions(checkpoint, listing):
    """Predictions of eval.py: {name: (H, W) trainIds}."""
    model, normalize = load_network(read_checkpoint(checkpoint))
    found = {}
    for frame in map(listing.__getitem__, range(len(listing))):
        image = torch.from_numpy(np.array(read_image(frame.image)))[None]
        found[frame.name] = Predictor(model, normalize, torch.device("cpu"))(image)[0].numpy()
    return found


def test_keep_1_writes_the_whole_prediction(cityscapes_root, checkpoint, tmp_path):
    """All pixels are kept, up to ties that folded BatchNorm rounds the other way."""
    make(checkpoint, "--cityscapes", cityscapes_root, "--output", tmp_path / "pseudo", "--keep", 1)
    listing = with_labels(cityscapes(cityscapes_root, "train", labels=False), tmp_path / "pseudo")
    check_listing(listing)
    expected = predictions(checkpoint, listing)
    labels = {
        frame.name: TRAIN_ID_OF[read_label(frame.label)]
        for frame in map(listing.__getitem__, range(5))
    }
    assert np.mean([(labels[name] == expected[name]).mean() for name in labels]) > 0.9999
    classes = record(tmp_path / "pseudo")["classes"].values()
    assert {metadata["kept_fraction"] for metadata in classes} <= {1.0, None}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--keep", "0.3"],
        ["--keep", "0.6", "--tta", "flip"],
        ["--keep", "1", "--min-confidence", "0.3"],
    ],
)
def test_the_record_counts_confident_pixels(cityscapes_root, checkpoint, tmp_path, arguments):
    """Labels are the prediction or ignored, in the fractions and numbers of the record."""
    common = [checkpoint, "--cityscapes", cityscapes_root, "--output"]
    make(*common, tmp_path / "all", "--keep", 1, *arguments[2:] * ("--tta" in arguments))
    make(*common, tmp_path / "some", *arguments)
    every, some = (
        np.stack([np.asarray(Image.open(p)) for p in sorted((tmp_path / n).rglob("*.png"))])
        for n in ("all", "some")
    )
    assert some.dtype == np.uint8
    assert ((some == every) | (some == 0)).all()
    for name, metadata in record(tmp_path / "some")["classes"].items():
        label_id = LABEL_ID_OF[CLASS_NAMES.index(name)]
        assert (every == label_id).sum() == metadata["predicted_pixels"]
        assert (some == label_id).sum() == metadata["kept_pixels"]
        if metadata["predicted_pixels"] > 1000 and "--min-confidence" not in arguments:
            assert metadata["kept_fraction"] == pytest.approx(float(arguments[1]), abs=0.02)
        if "--min-confidence" in arguments and metadata["kept_pixels"]:
            assert metadata["threshold"] >= 0.3
    assert 0 < (some > 0).sum() < (every > 0).sum()


@pytest.fixture
def opened():
    paths, active = [], [True]

    def note(event: str, arguments: tuple) -> None:
        if event == "open" and active:
            paths.append(str(arguments[0]))

    sys.addaudithook(note)  # cannot be removed, only disabled
    yield paths
    active.clear()


def test_labels_of_the_target_are_never_opened(cityscapes_root, checkpoint, tmp_path, opened):
    """An audit of all opened files finds images of the split, no label, no other split."""
    make(checkpoint, "--cityscapes", cityscapes_root, "--output", tmp_path / "pseudo")
    assert [path for path in opened if str(cityscapes_root / "leftImg8bit/train") in path]
    assert not [
        path
        for path in opened
        if str(cityscapes_root / "gtFine") in path or "leftImg8bit/val" in path
    ]


def test_an_interrupted_run_continues(cityscapes_root, checkpoint, tmp_path, monkeypatch, capsys):
    """The second run takes the thresholds of the record and writes the missing labels only."""
    arguments = [checkpoint, "--cityscapes", cityscapes_root, "--keep", 0.4, "--output"]
    make(*arguments, tmp_path / "straight")
    write, left = entry.write_png, [2]

    def killed_after_two(*arguments) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write(*arguments)

    monkeypatch.setattr(entry, "write_png", killed_after_two)
    with pytest.raises(KeyboardInterrupt):
        make(*arguments, tmp_path / "halted")
    assert len(files(tmp_path / "halted")) == 2
    assert not record(tmp_path / "halted")["complete"]
    monkeypatch.setattr(entry, "write_png", write)
    monkeypatch.setattr(entry, "measure_thresholds", None)  # is not called again
    make(*arguments, tmp_path / "halted")
    assert "3 labels written now, 2 existed already" in capsys.readouterr().out
    assert files(tmp_path / "halted") == files(tmp_path / "straight")
    assert record(tmp_path / "halted")["classes"] == record(tmp_path / "straight")["classes"]
    assert record(tmp_path / "halted")["complete"]


def test_labels_of_images_that_were_replaced_are_made_again(
    cityscapes_root, checkpoint, tmp_path, capsys
):
    """Frames that are cut anew have the names of the earlier ones."""
    arguments = [checkpoint, "--cityscapes", cityscapes_root, "--output", tmp_path / "pseudo"]
    make(*arguments)
    labels = sorted((tmp_path / "pseudo").rglob("*.png"))
    image = next((cityscapes_root / "leftImg8bit/train").rglob("*.png"))
    now = labels[0].stat().st_mtime_ns + 10**9
    os.utime(image, ns=(now, now))
    make(*arguments)
    printed = capsys.readouterr().out
    assert "1 images are newer than their labels" in printed
    assert f"1 labels written now, {len(labels) - 1} existed already" in printed


def test_images_without_a_time_of_change_are_labelled(cityscapes_root, checkpoint, tmp_path):
    """Archives that are made reproducibly, and some network storage, say 1970 for every file."""
    for image in (cityscapes_root / "leftImg8bit/train").rglob("*.png"):
        os.utime(image, ns=(0, 0))
    make(checkpoint, "--cityscapes", cityscapes_root, "--output", tmp_path / "pseudo")
    assert len(sorted((tmp_path / "pseudo").rglob("*.png"))) == 5


def test_the_record_holds_settings_and_warnings(cityscapes_root, checkpoint, tmp_path, capsys):
    """All that the labels depend on, and the warnings that are printed."""
    words = ["--cityscapes", cityscapes_root, "--split", "val", "--output", tmp_path / "pseudo"]
    make(checkpoint, *words, "--min-confidence", 0.1)
    made = record(tmp_path / "pseudo", "val")
    assert (made["name"], made["step"], made["complete"]) == ("teacher", 7, True)
    assert made["settings"] == {
        "checkpoint_sha256": made["settings"]["checkpoint_sha256"],
        "split": "val",
        "images": cityscapes(cityscapes_root, "val").fingerprint(),
        "keep": 0.5,
        "min_confidence": 0.1,
        "tta": None,
        "precision": "fp32",
    }
    assert len(made["settings"]["checkpoint_sha256"]) == 64
    assert made["images"] == cityscapes(cityscapes_root, "val").names
    assert made["environment"]["git"]
    assert list(made["classes"]) == list(CLASS_NAMES)
    assert "were adapted on 3 images" in made["warnings"][0]
    assert "transductive" in made["warnings"][1]
    output = capsys.readouterr().out
    assert all(f"WARNING: {warning}" in output for warning in made["warnings"])


def test_a_network_that_saw_the_labels_gives_a_warning(cityscapes_root, tmp_path, capsys):
    """Trained on true labels of these images, or chosen by validation labels."""
    names = cityscapes(cityscapes_root, "train").names
    metadata = {
        "seen_images": names[:2],
        "settings": {"train_on": "target"},
        "chosen_with_labels": True,
    }
    path = write_checkpoint(tmp_path / "last.pt", "oracle")
    content = read_checkpoint(path) | metadata
    torch.save(content, path)
    make(path, "--cityscapes", cityscapes_root, "--output", tmp_path / "pseudo")
    output = capsys.readouterr().out
    assert "trained on the true labels of 2 of these images" in output
    assert "chosen by its score on labelled validation images" in output


def test_a_list_and_a_prepared_root(cityscapes_root, checkpoint, tmp_path):
    """--list selects images; a prepared root gives the labels of the raw one."""
    words = ["--cityscapes", cityscapes_root, "--splits", "train", "--without-labels"]
    words += ["--output", tmp_path / "prepared"]
    prepare(prepare_arguments([*map(str, words)]))
    names = cityscapes(cityscapes_root, "train").names
    (tmp_path / "list.txt").write_text("\n".join(names[1:3]))
    common = ["--list", tmp_path / "list.txt"]
    for number, root in enumerate((cityscapes_root, tmp_path / "prepared")):
        make(checkpoint, "--cityscapes", root, *common, "--output", tmp_path / str(number))
    assert files(tmp_path / "0") == files(tmp_path / "1")
    assert list(files(tmp_path / "0")) == [label_path(name, "train") for name in names[1:3]]


def test_images_of_a_camera_keep_their_folders(checkpoint, tmp_path):
    """Labels of --target have the names of the images and fit them."""
    for number in range(3):
        path = tmp_path / f"dashcam/drive {number % 2}/{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image, _ = street(np.random.default_rng(number), CAMERA, (64, 128))
        Image.fromarray(image).save(path, quality=95)
    pattern = tmp_path / "dashcam/**/*.jpg"
    make(checkpoint, "--target", pattern, "--output", tmp_path / "pseudo")
    assert list(files(tmp_path / "pseudo")) == [
        f"gtFine/train/{name}_gtFine_labelIds.png"
        for name in ("drive 0/0000", "drive 0/0002", "drive 1/0001")
    ]
    listing = with_labels(unlabelled_images([str(tmp_path / "dashcam")]), tmp_path / "pseudo")
    check_listing(listing)
    assert read_label(listing[0].label).shape == (64, 128)


class TestBadInput:
    def test_labels_of_other_settings_are_kept(self, cityscapes_root, checkpoint, tmp_path):
        """Another setting or checkpoint ends with an error that names the difference."""
        words = ["--cityscapes", cityscapes_root, "--output", tmp_path / "pseudo"]
        make(checkpoint, *words)
        before = files(tmp_path / "pseudo")
        with pytest.raises(FileExistsError, match=r"other settings \(keep: 0.5 -> 0.2\)"):
            make(checkpoint, *words, "--keep", 0.2)
        other = write_checkpoint(tmp_path / "other.pt", "teacher", seed=1)
        with pytest.raises(FileExistsError, match="checkpoint_sha256"):
            make(other, *words)
        assert files(tmp_path / "pseudo") == before

    def test_ground_truth_is_never_overwritten(self, cityscapes_root, checkpoint, tmp_path):
        """A root with labels of other origin is not an output."""
        before = files(cityscapes_root)
        with pytest.raises(ValueError, match="would pass for its ground truth"):
            make(checkpoint, "--cityscapes", cityscapes_root, "--output", cityscapes_root)
        shutil.copytree(cityscapes_root, tmp_path / "copy")
        with pytest.raises(FileExistsError, match="were not made here and are kept"):
            make(checkpoint, "--cityscapes", cityscapes_root, "--output", tmp_path / "copy")
        assert files(cityscapes_root) == files(tmp_path / "copy") == before

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (["--keep", "0"], "would label nothing"),
            (["--min-confidence", "1"], "would label nothing"),
            (["--keep", "1.2"], "from 0 to 1"),
        ],
    )
    def test_fractions_that_keep_nothing(self, capsys, arguments, text):
        """--keep and --min-confidence must leave pixels to label."""
        with pytest.raises(SystemExit):
            entry.parse_arguments(["x.pt", "--cityscapes", "y", "--output", "z", *arguments])
        assert text in capsys.readouterr().err

    def test_only_cityscapes_has_splits(self, capsys):
        """--split with other images is a usage error."""
        words = ["x.pt", "--target", "y", "--output", "z", "--split", "val"]
        with pytest.raises(SystemExit):
            entry.parse_arguments(words)
        assert "--split is of a known data set" in capsys.readouterr().err

    def test_an_output_that_is_a_file(self, cityscapes_root, checkpoint, tmp_path):
        """The error names the output."""
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match="Cannot write into"):
            make(checkpoint, "--cityscapes", cityscapes_root, "--output", tmp_path / "file")


def test_an_ensemble_labels_where_its_members_agree(cityscapes_root, tmp_path):
    """The record names all members; two equal members give the labels of one."""
    one = write_checkpoint(tmp_path / "one.pt", "one")
    two = write_checkpoint(tmp_path / "two.pt", "two", seed=1, seen_images=["lindau/x"])
    copy = Path(shutil.copy(one, tmp_path / "copy.pt"))
    common = ["--cityscapes", cityscapes_root, "--keep", 0.5, "--output"]
    made = {}
    for name, members in {"alone": [one], "twice": [one, copy], "both": [one, two]}.items():
        make(*members, *common, tmp_path / name)
        labels = [np.asarray(Image.open(p)) for p in sorted((tmp_path / name).rglob("*.png"))]
        made[name] = np.stack(labels)
    assert (made["alone"] == made["twice"]).mean() > 0.9999
    both = record(tmp_path / "both")
    assert both["name"] == "one + two"
    assert len(both["settings"]["checkpoint_sha256"]) == 2
    assert both["provenance"]["seen_images"] == ["lindau/x"]
    listing = cityscapes(cityscapes_root, "train", labels=False)
    agree = np.stack(list(predictions(one, listing).values())) == np.stack(
        list(predictions(two, listing).values())
    )
    labelled = made["both"] > 0
    assert agree[labelled].mean() > agree[~labelled].mean()


def test_a_repeated_checkpoint_is_no_ensemble(checkpoint):
    other = checkpoint.parent / "../run/last.pt"
    with pytest.raises(ValueError, match=r"run/last\.pt is given 2 times: an ensemble needs"):
        entry.read_members([checkpoint, other])


def test_labels_without_a_pixel_are_refused(cityscapes_root, checkpoint, tmp_path):
    """After the first pass, with the largest confidence, which then keeps some pixel."""
    words = [checkpoint, "--cityscapes", cityscapes_root, "--output", tmp_path / "pseudo"]
    with pytest.raises(ValueError, match="0.999999 keeps no pixel of 5 images") as error:
        make(*words, "--min-confidence", 0.999999)
    assert not list((tmp_path / "pseudo").iterdir())
    largest = float(re.search(r"largest confidence is ([\d.]+)\.", str(error.value))[1])
    make(*words, "--min-confidence", largest - 1e-4)
    assert sum(entry["kept_pixels"] for entry in record(tmp_path / "pseudo")["classes"].values())


@pytest.mark.parametrize(("content", "message"), [("{", "is no JSON"), ("{}", "has no settings")])
def test_a_damaged_record_is_named(cityscapes_root, checkpoint, tmp_path, content, message):
    """Also by the training that would use the labels."""
    output = tmp_path / "pseudo"
    output.mkdir()
    (output / "pseudo_labels-train.json").write_text(content)
    with pytest.raises(ValueError, match=rf"pseudo_labels-train\.json {message}"):
        make(checkpoint, "--cityscapes", cityscapes_root, "--output", output)
    if content == "{":
        with pytest.raises(ValueError, match=r"pseudo_labels-train\.json holds no JSON"):
            label_record(output, "train")


def test_targets_too_large_for_memory_are_refused(
    cityscapes_root, checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setattr(memory, "available_memory", lambda device: 1_000_000)
    with pytest.raises(ValueError, match="Shrink it"):
        make(checkpoint, "--cityscapes", cityscapes_root, "--output", tmp_path / "pseudo")


def test_an_ensemble_has_the_same_classes(cityscapes_root, tmp_path):
    members = [
        write_checkpoint(
            tmp_path / f"{name}.pt", num_classes=2, class_set=load_class_set(name).as_dict()
        )
        for name in ("binary", "cityscapes19")
    ]
    with pytest.raises(ValueError, match=r"have other classes: background, foreground and road,"):
        entry.read_members(members)


def test_mostly_ignored_pseudo_labels_of_rare_classes_are_taken(cityscapes_root, tmp_path):
    """An untrained network's: shares like those of IDD's ids, which check_listing refuses."""
    images = cityscapes(cityscapes_root, "train", labels=False)
    rare = np.array([8, 12, 13, 17, 19, 20, 22, 24, 25, 27, 28, 31, 32, 33], np.uint8)
    label = np.zeros((64, 128), np.uint8)
    label[:30] = np.resize(rare, (30, 128))
    for name in images.names:
        path = tmp_path / label_path(name, "train")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(label).save(path)
    assert with_labels(images, tmp_path).has_labels
