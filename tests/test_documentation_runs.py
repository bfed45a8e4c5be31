"""The commands of README and docs, really run: page by page, in their order, on tiny data and with
few steps.
"""

import os
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from dataset.cityscapes import cityscapes
from dataset.gta5 import gta5
from scripts import make_demo_data
from tests.conftest import scene
from tests.dataset.test_synthia import write_synthia
from tests.helpers.documentation import PAGES, ROOT, VARIABLES, blocks, shell
from tests.helpers.networks import write_checkpoint
from tests.scripts.test_convert import Published
from tests.test_documentation import FOREIGN, NO_COMMANDS, script_of
from utils.video import VideoWriter

pytestmark = pytest.mark.slow

TRAINING = (
    "--backbone resnet18 --backbone-weights none --crop-size 64 64 --max-steps 1 --schedule-steps 9"
    " --panel-every 0 --validate-every 0"
)
CPU = "--device cpu --precision fp32"
DATA = "--size 64 128 --source-images 4 --target-train 4 --target-val 2 --workers 1"
SMALLER = {
    "train": f"{TRAINING} {CPU} --workers 0",
    "train_da": f"{TRAINING} {CPU} --workers 0",
    "eval": f"{CPU} --workers 0",
    "scripts.predict": CPU,
    "scripts.prepare": "--workers 1",
    "scripts.make_demo_data": DATA,
    "scripts.make_pseudo_labels": f"{CPU} --workers 0",
    "scripts.recalibrate": f"{CPU} --workers 0",
}
"""What is added to a script's own words, for the work to be small; the last of two equal flags
counts.
"""

ONLY_PARSED = {
    "torchrun": "tests/test_distributed.py trains with both scripts under torchrun",
    "scripts.reproduce": "tests/scripts/test_reproduce.py trains and scores a comparison",
    "scripts.summarise": "needs a comparison: tests/scripts/test_summarise.py",
    "scripts.draw_documentation": "needs a finished demo: tests/scripts/test_draw_documentation.py",
    "--camera": "needs one: tests/scripts/test_predict_camera.py has a video in its place",
    "scripts.benchmark": "minutes of measuring: tests/scripts/test_benchmark*.py",
}
"""What is parsed (tests/test_documentation.py) and not run: why."""


def make_data(root: Path) -> None:
    """Generated streets in the place of the real data sets, with a test split and images by the
    names that the paper's lists begin with.
    """
    make_demo_data.main(["--output", str(root), *DATA.split()])
    shutil.copytree(root / "cityscapes/leftImg8bit/val", root / "cityscapes/leftImg8bit/test")


def make_lists(folder: Path, root: Path) -> None:
    """dataset/splits/ with the names of the generated images."""
    folder.mkdir(parents=True)
    lists = {"gta5_train_500": gta5(root / "gta5")}
    for name in ("train_500", "train_adapt", "train_select", "val_250"):
        lists[f"cityscapes_{name}"] = cityscapes(root / "cityscapes", name.split("_")[0])
    for name, listing in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(listing.names))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder with everything that a reader has, under the names that the pages use."""
    folder = tmp_path_factory.mktemp("reader")
    make_data(folder / "data")
    make_lists(folder / "dataset/splits", folder / "data")
    (folder / "frames").mkdir()
    for place in ("street.png", "aerial.png", "frames/1.png", "frames/2.png"):
        Image.fromarray(scene(1, (64, 128))[0]).save(folder / place)
    (folder / "dashcam/monday").mkdir(parents=True)
    for number in range(4):
        Image.fromarray(scene(number, (64, 128))[0]).save(folder / f"dashcam/monday/{number}.jpg")
    write_synthia(folder / "data/synthia", 2)
    with VideoWriter(folder / "drive.mp4", 10) as writer:
        for number in range(3):
            writer.write(scene(number, (64, 96))[0])
    torch.manual_seed(0)
    torch.save(
        {
            "model_state": {
                f"module.{name}": value for name, value in Published().state_dict().items()
            }
        },
        folder / "published.pth",
    )
    torch.save(
        torchvision.models.resnet18(weights=None).state_dict(),
        folder / "resnet18_from_elsewhere.pth",
    )
    with SummaryWriter(str(folder / "checkpoints/carla/seed0/ada")) as events:
        events.add_scalar("val/miou", 0.1, 1)
    (folder / "docs/images").mkdir(parents=True)
    return folder


@pytest.fixture
def reader(prepared, tmp_path, monkeypatch, request) -> Path:
    folder = shutil.copytree(prepared, tmp_path / "reader")
    if request.node.callspec.id != "README.md":  # which trains its own
        streets = [f"streets/seed{seed}/source-only" for seed in range(3)]
        for name in ("source", "source-only", "ada", "light-lab-ada", "large", *streets):
            write_checkpoint(folder / "checkpoints" / name / "last.pt", name=name)
        write_checkpoint(folder / "RUN/last.pt")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", sys.argv)
    return folder


def status(module: str) -> object:
    """Runs a script with ``sys.argv``; its exit status, or the message that it ends with."""
    try:
        runpy.run_module(module, run_name="__main__")
    except SystemExit as end:
        return end.code
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_can_be_run(page, reader):
    ran = 0
    for block in blocks(page):
        if block.text.startswith(tuple(NO_COMMANDS)):
            continue
        for command in shell(block, reader).commands:
            if any(tuple(command[: len(words)]) == words for words in FOREIGN):
                continue
            name, words, _ = script_of(command)
            if ONLY_PARSED.keys() & {command[0], name, *words}:
                continue
            sys.argv = [name, *words, *SMALLER.get(name, "").split()]
            assert not status(name), f"{block}: {' '.join(command)}"
            ran += 1
    assert ran or page.name == "scale.md"


def test_what_is_only_parsed_is_still_there():
    """Reasons of commands that no page has any more would only hide others."""
    found = {
        name
        for page in PAGES
        for block in blocks(page)
        for name in ONLY_PARSED
        if name in block.text
    }
    assert found == ONLY_PARSED.keys()
    assert (
        os.path.isdir(ROOT / VARIABLES["GTA5"]) is False
    )  # commands run in a reader's folder, never in the repository
