"""scripts/recalibrate.py: a checkpoint with other BatchNorm statistics, which can be scored."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

import eval as evaluation
from dataset.cityscapes import cityscapes
from dataset.demo.scene import CAMERA, street
from scripts import recalibrate as entry
from tests.conftest import scene, write_cityscapes
from tests.helpers.networks import write_checkpoint
from utils.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.usefixtures("narrow_networks")

COMMON = ["--workers", "0", "--device", "cpu", "--precision", "fp32"]


def run(*arguments):
    entry.main(entry.parse_arguments([*map(str, arguments), *COMMON]))


def score(*checkpoints, cityscapes_root):
    words = [*map(str, checkpoints), "--cityscapes", str(cityscapes_root), *COMMON]
    evaluation.main(evaluation.parse_arguments(words))


@pytest.fixture
def checkpoint(tmp_path):
    return write_checkpoint(tmp_path / "run/last.pt", "source", discriminator="light", best=None)


def state(path):
    return read_checkpoint(path)["parts"]["model"]


def changed(path, other_path):
    """Names of the tensors that differ between two checkpoints."""
    other = state(other_path)
    return {name for name, value in state(path).items() if not torch.equal(value, other[name])}


def test_statistics_change_and_nothing_else(cityscapes_root, checkpoint, tmp_path, capsys):
    """Weights stay; the checkpoint records the images and settings."""
    run(checkpoint, "--cityscapes", cityscapes_root, "--batch-size", 2)
    new = checkpoint.with_name("last-adabn.pt")
    assert changed(checkpoint, new) == {
        name for name in state(new) if name.endswith(("running_mean", "running_var"))
    }
    content = read_checkpoint(new)
    assert (content["name"], content["step"]) == ("source-adabn", 7)
    assert content["discriminator"] == "light"
    assert content["parts"].keys() == {"model"}
    assert len(content["seen_images"]) == 4  # two batches of two, no image twice
    assert set(content["seen_images"]) <= set(cityscapes(cityscapes_root, "train").identities)
    how = content["settings"]["recalibrated"]
    assert how["images"].startswith("4 images")
    assert how["git"]
    assert "4 images are few" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_network(cityscapes_root, checkpoint, tmp_path):
    """--seed decides on images and crops."""
    words = [checkpoint, "--cityscapes", cityscapes_root, "--batch-size", 2, "--batches", 1]
    for number, seed in enumerate((1, 1, 2)):
        output = tmp_path / f"{number}.pt"
        run(*words, "--seed", seed, "--crop-size", 48, 64, "--output", output)
    assert not changed(tmp_path / "0.pt", tmp_path / "1.pt")
    assert changed(tmp_path / "0.pt", tmp_path / "2.pt")


def test_eval_warns_if_its_images_are_scored(cityscapes_root, checkpoint, capsys):
    """eval.py reads the checkpoint, and warns for --split val only."""
    words = [checkpoint, "--cityscapes", cityscapes_root, "--batch-size"]
    run(*words, 2)
    run(*words, 3, "--split", "val", "--output", checkpoint.with_name("val.pt"), "--name", "on val")
    assert "WARNING: --split val" in capsys.readouterr().out
    paths = [checkpoint, checkpoint.with_name("last-adabn.pt"), checkpoint.with_name("val.pt")]
    score(*paths, cityscapes_root=cityscapes_root)
    output = capsys.readouterr().out
    rows = {
        line.split("|")[1].strip(): line.split("|")[2:]
        for line in output.splitlines()
        if line.startswith("| ") and "GMac" in line
    }
    assert rows["source"] != rows["source-adabn"]
    assert "WARNING: on val was trained or adapted on 3 of the 3 images" in output
    assert "source-adabn was trained" not in output


def test_scored_images_are_found_by_shorter_names(cityscapes_root, checkpoint, capsys):
    """--target leftImg8bit/val/lindau names images without the city; eval.py still warns."""
    images = cityscapes_root / "leftImg8bit/val/lindau"
    run(checkpoint, "--target", images, "--batch-size", 3)
    score(checkpoint.with_name("last-adabn.pt"), cityscapes_root=cityscapes_root)
    assert "trained or adapted on 3 of the 3 images" in capsys.readouterr().out


def test_no_label_is_opened_or_needed(checkpoint, tmp_path):
    """An audit of all opened files finds images and no label."""
    root, paths, active = write_cityscapes(tmp_path / "data", {"train": 4}), [], [True]
    sys.addaudithook(
        lambda event, arguments: (
            paths.append(str(arguments[0])) if event == "open" and active else None
        )
    )
    run(checkpoint, "--cityscapes", root)
    active.clear()
    assert [path for path in paths if "leftImg8bit" in path]
    assert not [path for path in paths if "gtFine" in path]


def test_images_of_different_sizes_need_a_crop(checkpoint, tmp_path):
    """Without --crop-size, or with one that is too large, the error tells the sizes."""
    dashcam = tmp_path / "dashcam"
    dashcam.mkdir()
    for number in range(4):
        size = (64, 128) if number else (96, 160)
        image, _ = street(np.random.default_rng(number), CAMERA, size)
        Image.fromarray(image).save(dashcam / f"{number}.jpg")
    message = r"\(96, 160\).*different sizes make no batch.*--crop-size"
    with pytest.raises(ValueError, match=message):
        run(checkpoint, "--target", dashcam)
    with pytest.raises(ValueError, match=r"is \(64, 128\) .*smaller than --crop-size \(80, 128\)"):
        run(checkpoint, "--target", dashcam, "--crop-size", 80, 128)
    output = tmp_path / "new/network.pt"
    run(checkpoint, "--target", dashcam, "--crop-size", 64, 128, "--output", output)
    assert read_checkpoint(output)["seen_images"] == ["0", "1", "2", "3"]


class TestBadInput:
    def test_too_few_images(self, checkpoint, tmp_path):
        """Statistics need at least one whole batch."""
        Image.fromarray(scene(0, (64, 64))[0]).save(tmp_path / "one.png")
        with pytest.raises(ValueError, match="Found 1 images, fewer than one batch of 4"):
            run(checkpoint, "--target", tmp_path / "one.png")

    def test_a_checkpoint_is_not_overwritten(self, cityscapes_root, checkpoint):
        """An existing output ends with an error."""
        before = checkpoint.read_bytes()
        with pytest.raises(FileExistsError, match="exists. Choose another --output"):
            run(checkpoint, "--cityscapes", cityscapes_root, "--output", checkpoint)
        assert checkpoint.read_bytes() == before
        with pytest.raises(OSError, match="it is a folder"):
            run(checkpoint, "--cityscapes", cityscapes_root, "--output", checkpoint.parent)

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [(["--batch-size", "1"], "at least 2"), (["--crop-size", "16", "64"], "at least 32")],
    )
    def test_sizes_that_the_network_cannot_take(self, capsys, arguments, text):
        """A usage error tells the smallest size."""
        with pytest.raises(SystemExit):
            entry.parse_arguments(["x.pt", "--cityscapes", "y", *arguments])
        assert text in capsys.readouterr().err
