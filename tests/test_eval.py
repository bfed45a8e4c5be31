import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import eval as evaluation_script
from dataset.cityscapes import cityscapes
from dataset.image_io import read_image
from dataset.label_io import read_label
from dataset.labels import CLASS_NAMES, TRAIN_ID_OF
from model.bisenet import BiSeNet
from model.discriminator import build_discriminator
from model.inference.predictor import Predictor
from model.preprocessing import INPUT_CONVENTIONS
from scripts.predict import __main__ as predict
from tests.helpers.narrow import real_backbones
from tests.helpers.networks import write_checkpoint
from utils.benchmark import memory
from utils.evaluation.metrics import confusion_matrix, scores
from utils.evaluation.published import TABLE_1, TABLE_2
from utils.training.checkpoint import save_checkpoint

pytestmark = pytest.mark.usefixtures("narrow_networks")

COMMON = ["--workers", "0", "--device", "cpu", "--precision", "fp32"]


def make_checkpoint(path, name="ours", backbone="resnet18", num_classes=19, images=(), **metadata):
    torch.manual_seed(3)
    model = BiSeNet(num_classes, backbone)
    metadata |= {
        "name": name,
        "architecture": model.architecture,
        "input": INPUT_CONVENTIONS["imagenet"].as_dict(),
        "step": 7,
    }
    save_checkpoint(path, {"model": model}, seen_images=list(images), **metadata)
    return model


def run(*arguments):
    evaluation_script.main(evaluation_script.parse_arguments([*COMMON, *map(str, arguments)]))


def test_classes_without_ground_truth_are_named(cityscapes_root, tmp_path, capsys):
    """One predicted pixel makes their IoU 0, and lowers the mean; --classes leaves them out."""
    make_checkpoint(tmp_path / "last.pt")
    for file in cityscapes_root.glob("gtFine/val/**/*_labelIds.png"):
        label = np.array(Image.open(file))
        Image.fromarray(np.where(label == 26, 0, label)).save(file)  # no car
    run(tmp_path / "last.pt", "--cityscapes", cityscapes_root)
    note = next(line for line in capsys.readouterr().out.splitlines() if "NOTE" in line)
    assert "car" in note.split(" in the labels")[0].removeprefix("NOTE: no pixel of ").split(", ")
    run(tmp_path / "last.pt", "--cityscapes", cityscapes_root, "--classes", "road")
    assert "NOTE" not in capsys.readouterr().out


@real_backbones()
def test_scores_are_those_of_the_predictions_at_full_resolution(cityscapes_root, tmp_path, capsys):
    """The JSON file has the confusion matrix of Predictor over the split, unresized."""
    model = make_checkpoint(tmp_path / "last.pt")
    run(tmp_path / "last.pt", "--cityscapes", cityscapes_root, "--json", tmp_path / "scores.json")
    row = json.loads((tmp_path / "scores.json").read_text())["rows"][0]

    listing, matrix, ignored = cityscapes(cityscapes_root, "val"), 0, 0
    for index in range(len(listing)):
        image = torch.from_numpy(read_image(listing[index].image).copy())[None]
        label = TRAIN_ID_OF[read_label(listing[index].label)]
        prediction = Predictor(model, INPUT_CONVENTIONS["imagenet"], torch.device("cpu"))(image)
        matrix = matrix + confusion_matrix(label, prediction[0])
        ignored += int((label == 255).sum())
    expected = scores(matrix, ignored)
    assert row["matrix"] == matrix.tolist()
    assert row["miou"] == expected.miou
    assert (
        row["pixel_accuracy_with_void"]
        == expected.pixel_accuracy_with_void
        < expected.pixel_accuracy
    )
    assert sum(map(sum, row["matrix"])) + row["ignored"] == 3 * 64 * 128
    assert row["model_parameters"] == 12_054_042
    assert f"{100 * expected.miou:.2f}" in capsys.readouterr().out


@real_backbones()
def test_tables_show_the_published_rows_marked(cityscapes_root, tmp_path, capsys):
    """Costs stand in the row of their network only."""
    make_checkpoint(tmp_path / "a.pt", "supervised")
    make_checkpoint(tmp_path / "b.pt", "adapted", discriminator="light")
    run(tmp_path / "a.pt", tmp_path / "b.pt", "--cityscapes", cityscapes_root)
    output = capsys.readouterr().out
    lines = {
        line.split("|")[1].strip(): line
        for line in output.splitlines()
        if line.startswith("|") and "GMac" in line
    }
    assert lines["light LAB-ADA (published)"].count("35.00") == 1
    assert "1.11 GMac" in lines["adapted"]
    assert "0.19 M" in lines["adapted"]
    assert "12.05 M" in lines["adapted"]
    assert "0.19 M" not in lines["supervised"]
    assert output.count("(published) ") == 1 + len(TABLE_1) + len(
        TABLE_2
    )  # once in the explanation


def test_rows_of_equal_names_are_told_apart(cityscapes_root, tmp_path, capsys):
    """Seeds of a comparison have the name of their row: the tables tell their files."""
    files = [tmp_path / f"seed{seed}/last.pt" for seed in range(2)]
    for file in files:
        file.parent.mkdir()
        make_checkpoint(file)
    run(*files, "--cityscapes", cityscapes_root)
    printed = capsys.readouterr().out
    assert [printed.count(f"| ours ({file}) ") for file in files] == [2, 2]


def test_published_rows_stand_beside_val_of_cityscapes_only(gta5_root, tmp_path, capsys):
    """Not beside scores of other images of the same classes, whose split is named as it is."""
    make_checkpoint(tmp_path / "a.pt")
    run(tmp_path / "a.pt", "--source", gta5_root, "--json", tmp_path / "a.json")
    assert "(published)" not in capsys.readouterr().out
    assert json.loads((tmp_path / "a.json").read_text())["split"] == "train"


def test_published_means_belong_to_published_rows():
    means = {name: round(sum(iou) / 19, 2) for name, iou in TABLE_1.items()}
    table = {row.name: row.miou for row in TABLE_2}
    for name, mean in means.items():
        assert mean == pytest.approx(table[name], abs=0.011), name


def test_a_subset_averages_its_classes_and_hides_published_means(cityscapes_root, tmp_path, capsys):
    make_checkpoint(tmp_path / "last.pt")
    run(
        tmp_path / "last.pt",
        "--cityscapes",
        cityscapes_root,
        "--classes",
        "carla13",
        "--json",
        tmp_path / "s.json",
    )
    content = json.loads((tmp_path / "s.json").read_text())
    row = content["rows"][0]
    assert len(content["classes"]) == 13
    chosen = [row["iou"][CLASS_NAMES.index(name)] for name in content["classes"]]
    assert row["miou"] == pytest.approx(sum(chosen) / 13)
    assert "47.30" not in capsys.readouterr().out


def test_misleading_scores_have_warnings(cityscapes_root, tmp_path, capsys):
    """Scored images that were trained on, and a checkpoint that was chosen with labels."""
    names = cityscapes(cityscapes_root, "val").names
    make_checkpoint(tmp_path / "best.pt", images=names[:2], chosen_with_labels=True)
    run(tmp_path / "best.pt", "--cityscapes", cityscapes_root)
    output = capsys.readouterr().out
    assert "WARNING: ours was trained or adapted on 2 of the 3 images" in output
    assert "report last.pt" in output


def test_flags_select_the_scored_images(cityscapes_root, gta5_root, tmp_path, capsys):
    """--list, --split and --gta5 decide which images are scored."""
    make_checkpoint(tmp_path / "last.pt")
    (tmp_path / "one.txt").write_text("lindau/lindau_000001_000019_leftImg8bit.png\n")
    run(tmp_path / "last.pt", "--cityscapes", cityscapes_root, "--list", tmp_path / "one.txt")
    run(tmp_path / "last.pt", "--cityscapes", cityscapes_root, "--split", "train")
    run(tmp_path / "last.pt", "--gta5", gta5_root)
    output = capsys.readouterr().out
    assert "1 images of" in output
    assert "5 images of" in output
    assert "6 images of" in output


def test_source_and_target_name_the_data_sets_too(cityscapes_root, gta5_root, tmp_path, capsys):
    """--source is --gta5 and --target is --cityscapes, as in every script."""
    make_checkpoint(tmp_path / "last.pt")
    run(tmp_path / "last.pt", "--target", cityscapes_root)
    run(tmp_path / "last.pt", "--source", gta5_root)
    run(tmp_path / "last.pt", "--source", cityscapes_root)  # any labelled data set, as in training
    output = capsys.readouterr().out
    assert f"3 images of {cityscapes_root}, split val" in output
    assert f"5 images of {cityscapes_root}, full resolution" in output
    assert f"6 images of {gta5_root}, full resolution" in output


def test_a_checkpoint_is_read_once(cityscapes_root, tmp_path, monkeypatch):
    """Reading is slow: a checkpoint has hundreds of MB."""
    for name in ("a", "b"):
        make_checkpoint(tmp_path / f"{name}.pt", name)
    read, paths = evaluation_script.read_checkpoint, []
    monkeypatch.setattr(
        evaluation_script, "read_checkpoint", lambda path: paths.append(path) or read(path)
    )
    checkpoints = [tmp_path / "a.pt", tmp_path / "b.pt"]
    run(*checkpoints, "--cityscapes", cityscapes_root, "--pictures", tmp_path / "pictures")
    assert paths == checkpoints
    folders = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert folders == ["a-a", "b-b"]


def test_discriminator_costs_are_those_of_table_2(cityscapes_root, tmp_path):
    make_checkpoint(tmp_path / "last.pt", discriminator="full")
    run(tmp_path / "last.pt", "--cityscapes", cityscapes_root, "--json", tmp_path / "s.json")
    row = json.loads((tmp_path / "s.json").read_text())["rows"][0]
    assert (
        row["discriminator_parameters"]
        == sum(p.numel() for p in build_discriminator("full").parameters())
        == 2_781_121
    )
    assert round(row["discriminator_gmac"], 2) == 15.47


class TestBadInput:
    def test_another_class_count(self, cityscapes_root, tmp_path):
        make_checkpoint(tmp_path / "last.pt", num_classes=7)
        with pytest.raises(ValueError, match="has 7 classes; 19 are expected"):
            run(tmp_path / "last.pt", "--cityscapes", cityscapes_root)

    def test_no_checkpoint(self, cityscapes_root, tmp_path):
        (tmp_path / "x.pt").write_text("x")
        with pytest.raises(ValueError, match="no checkpoint"):
            run(tmp_path / "x.pt", "--cityscapes", cityscapes_root)

    def test_unknown_classes(self, cityscapes_root, tmp_path):
        make_checkpoint(tmp_path / "last.pt")
        with pytest.raises(ValueError, match="Unknown class 'tank'"):
            run(tmp_path / "last.pt", "--cityscapes", cityscapes_root, "--classes", "tank")

    def test_no_data_set(self, capsys):
        with pytest.raises(SystemExit):
            evaluation_script.parse_arguments(["x.pt"])
        assert "--target/--cityscapes --source/--gta5" in capsys.readouterr().err


def test_small_images_are_scored_as_predict_segments_them(cityscapes_root, tmp_path):
    """Below the 32 pixels that the network takes, in the middle of a split."""
    checkpoint = write_checkpoint(tmp_path / "last.pt")
    image = sorted((cityscapes_root / "leftImg8bit/val").rglob("*.png"))[1]
    name = image.stem.removesuffix("_leftImg8bit")
    (label,) = (cityscapes_root / "gtFine/val").rglob(f"{name}_gtFine_labelIds.png")
    for path in (image, label):
        Image.open(path).crop((0, 0, 40, 20)).save(path)
    saved = tmp_path / "saved"
    run(checkpoint, "--cityscapes", cityscapes_root, "--save-predictions", saved)
    words = ["--model", checkpoint, "--output", tmp_path / "out", "--save", "labelIds"]
    predict.main(predict.parse_arguments(list(map(str, [image, *words, "--device", "cpu"]))))
    found, expected = (
        saved / f"{name}_pred_labelIds.png",
        tmp_path / f"out/{image.stem}_labelIds.png",
    )
    assert Image.open(found).size == (40, 20)
    assert np.array_equal(Image.open(found), Image.open(expected))


def test_images_too_large_for_memory_are_refused_first(cityscapes_root, tmp_path, monkeypatch):
    """The largest of the split is compared with the available memory before any is scored."""
    make_checkpoint(tmp_path / "last.pt")
    monkeypatch.setattr(memory, "available_memory", lambda device: 1_000_000)
    monkeypatch.setattr(evaluation_script, "evaluate_model", lambda *words: pytest.fail("scored"))
    with pytest.raises(ValueError, match=r"leftImg8bit\.png is \d+x\d+ .*Shrink it, or segment"):
        run(tmp_path / "last.pt", "--cityscapes", cityscapes_root)


def test_a_process_reads_the_sizes_of_its_own_images(cityscapes_root, monkeypatch):
    """Together the processes open every image once; one may have none."""
    listing, opened = cityscapes(cityscapes_root, "val"), []

    def largest(images):
        opened.extend(images.names)
        return images[0].image, (1, 1)

    monkeypatch.setattr(evaluation_script, "largest_image", largest)
    processes = len(listing) + 1
    for rank in range(processes):
        process = SimpleNamespace(rank=rank, world_size=processes, device=torch.device("cpu"))
        evaluation_script.check_own_images(listing, process, None)
    assert opened == listing.names


def test_views_of_an_image_need_more_memory(cityscapes_root, tmp_path, monkeypatch):
    """An image that fits alone is refused with --tta, whose largest view is 1.75 times as large."""
    make_checkpoint(tmp_path / "last.pt")
    monkeypatch.setattr(evaluation_script, "evaluate_model", lambda *words: pytest.fail("scored"))
    image = next(cityscapes_root.glob("leftImg8bit/val/*/*.png"))
    width, height = Image.open(image).size
    needed = width * height * memory.BYTES_PER_PIXEL
    monkeypatch.setattr(memory, "available_memory", lambda device: 2 * needed)
    with pytest.raises(ValueError, match=r"in 12 views, the largest at scale 1\.75, .*fewer views"):
        run(tmp_path / "last.pt", "--cityscapes", cityscapes_root, "--tta", "multiscale")
