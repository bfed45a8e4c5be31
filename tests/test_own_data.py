"""The page docs/own_data.md without its training: test_documentation_runs.py runs all of it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.layout import data_images
from dataset.layout_file import load_layout
from scripts import average, make_demo_data, make_pseudo_labels, recalibrate
from scripts.describe import __main__ as describe
from scripts.select import __main__ as select
from tests.helpers.documentation import ROOT, code_blocks, run_in_bash
from tests.helpers.networks import write_checkpoint
from utils.training.checkpoint import read_checkpoint

TINY = "--size 64 96 --source-images 3 --target-train 2 --target-val 2 --workers 1"


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> Path:
    """A folder with the generated data and the files that the page writes."""
    folder = tmp_path_factory.mktemp("reader")
    output = ["--output", str(folder / "aerial"), "--scene", "aerial"]
    make_demo_data.main([*output, *TINY.split()])
    for block in code_blocks(ROOT / "docs/own_data.md"):
        if "echo '" in block.text:
            run_in_bash(block, folder)
    return folder


LAYOUTS = {
    "simulation": ("simulation", "train", 3),
    "drone": ("drone", "val", 2),
    "rover_simulation": ("simulation", "train", 3),
    "rover_drone": ("drone", "val", 2),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_files_of_the_page_fit_its_data(name, reader, capsys):
    """Each layout finds all pairs; describe names every value, and finds every class."""
    folder, split, count = LAYOUTS[name]
    layout, root = reader / f"{name}.toml", reader / "aerial" / folder
    describe.main(describe.parse_arguments([str(root), "--layout", str(layout)]))
    text = capsys.readouterr().out
    assert "PROBLEM" not in text
    assert "No class names" not in text
    assert "No pixel of" not in text
    images = data_images(root, split, layout=load_layout(layout))
    assert len(images) == count
    if split == "val":
        assert len(data_images(root, "train", False, load_layout(layout))) == 2


def test_the_suggested_layout_is_that_of_the_page(reader, capsys):
    """describe guesses the pattern that the page then writes, and the values of the masks."""
    describe.main(describe.parse_arguments([str(reader / "aerial/simulation")]))
    text = capsys.readouterr().out
    page = (reader / "simulation.toml").read_text()
    for line in ('images = "photos/{key}.png"', 'labels = "masks/{key}.png"'):
        assert line in text
        assert line in page
    assert 'classes = ["class 0", "class 1", "class 2", "class 3"]' in text


def test_the_aerial_data_set(reader):
    """Masks are of three classes, black and white ones of the roads; train has no labels."""
    root = reader / "aerial"
    files = {path.relative_to(root).as_posix() for path in root.rglob("*.png")}
    assert len(files) == 3 * 3 + 2 + 3 * 2
    assert not any("train" in file and "photos" not in file for file in files)
    mask = np.asarray(Image.open(root / "simulation/masks/0001.png"))
    road = np.asarray(Image.open(root / "simulation/drivable/0001.png"))
    assert np.array_equal(mask == 2, road == 255)
    assert json.loads((root / "demo.json").read_text())["scene"] == "aerial"


def test_an_aerial_data_set_is_continued(reader, capsys):
    """A missing file is drawn again, equal; the other scene is refused in the same folder."""
    path = reader / "aerial/drone/masks/val/0002.png"
    content = path.read_bytes()
    path.unlink()
    words = ["--output", str(reader / "aerial"), *TINY.split()]
    make_demo_data.main([*words, "--scene", "aerial"])
    assert path.read_bytes() == content
    assert "1 drawn now" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        make_demo_data.main(words)
    assert "with other settings" in capsys.readouterr().err


def test_scripts_without_labels_know_the_layout(reader, tmp_path, narrow_networks):
    """A layout of one's own where only images are read: its train images, found by its file."""
    images = ["--target", str(reader / "aerial/drone"), "--device", "cpu", "--workers", "0"]
    layout = ["--target-layout", str(reader / "drone.toml")]
    checkpoint = str(write_checkpoint(tmp_path / "last.pt", "run"))
    output = ["--output", str(tmp_path / "adabn.pt")]
    recalibrate.main(
        recalibrate.parse_arguments([checkpoint, *images, *layout, *output, "--batch-size", "2"])
    )
    assert len(read_checkpoint(tmp_path / "adabn.pt")["seen_images"]) == 2
    pseudo = [checkpoint, *images, *layout, "--output", str(tmp_path / "pseudo")]
    make_pseudo_labels.main(make_pseudo_labels.parse_arguments(pseudo))
    assert len(list((tmp_path / "pseudo/gtFine/train").rglob("*.png"))) == 2
    both = [checkpoint, str(tmp_path / "adabn.pt"), *images, *layout]
    select.main(select.parse_arguments([*both, "--json", str(tmp_path / "select.json")]))
    assert json.loads((tmp_path / "select.json").read_text())["images"] == 2


@pytest.mark.parametrize("script", [average, make_pseudo_labels, recalibrate, select])
def test_a_layout_needs_a_root(script, capsys):
    output = [] if script is select else ["--output", "o"]
    with pytest.raises(SystemExit):
        script.parse_arguments(["a.pt", "--cityscapes", "c", "--target-layout", "acdc", *output])
    assert "--target-layout describes --target ROOT" in capsys.readouterr().err
