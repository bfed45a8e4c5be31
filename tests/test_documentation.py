"""The commands that README, docs and --help tell cannot rot: every one is parsed by its script, and those that tiny data suffice for are run."""

import importlib
import itertools
import os
import subprocess

import pytest

from tests.documentation import PAGES, ROOT, Block, blocks, examples, shell

NO_COMMANDS = {
    "import numpy, onnxruntime": "a program in Python; tests/scripts/test_export.py does the same",
    "import torch\nnetwork": "a program in Python; tests/scripts/test_export_program.py does the same",
    "train.py  train_da.py  eval.py": "a tree of files",
    "@misc{": "a citation",
    "$GTA5/images/": "a tree of files",
}
"""Blocks of code that no shell is meant for, by their beginning: why."""

FOREIGN = {
    ("python", "-c"): "the official evaluation; tests/test_eval_outputs.py runs it",
    ("pip", "install", "-r"): "test_files_that_pip_reads_exist",
    ("trtexec",): "TensorRT, which the page says was not at hand",
    ("ffmpeg",): "cuts a video into images",
    ("sbatch",): "a cluster's; the command that it wraps is parsed",
    ("./scripts/demo.sh",): "minutes; test_shell_scripts_can_be_parsed",
    ("./scripts/check_gpu.sh",): "minutes; tests/scripts/test_check_gpu.py",
    ("./scripts/test.sh",): "this suite",
}
"""Commands of programs that are not ours, by their first words: what keeps them true."""

SCRIPTS = ["train.py", "train_da.py", "eval.py", *(f"scripts/{path.name}" for path in sorted((ROOT / "scripts").glob("*.py")))]
EVERY = [block for page in PAGES for block in blocks(page)]
RUNNABLE = [block for block in EVERY if not block.text.startswith(tuple(NO_COMMANDS))]


def script_of(command: list[str]) -> tuple[str, list[str], int]:
    """The module that a command runs, the words that it gets, and in how many processes."""
    if command[0] == "torchrun":
        place = next(place for place, word in enumerate(command) if word.endswith(".py"))
        options = dict(itertools.pairwise(command[1:place]))
        return command[place][:-3], command[place + 1 :], int(options.get("--nproc-per-node", 1)) * int(options.get("--nnodes", 1))
    if command[1] == "-m":
        return command[2], command[3:], 1
    return command[1].removesuffix(".py"), command[2:], 1


def wrapped(command: list[str]) -> str | None:
    """The shell command that sbatch is to run."""
    return command[command.index("--wrap") + 1] if "--wrap" in command else None


def parse(command: list[str]) -> None:
    """Has the command's own script parse its words. SystemExit where it does not take them."""
    name, words, processes = script_of(command)
    module = importlib.import_module(name)
    if hasattr(module, "__path__"):  # a package is run by its __main__
        module = importlib.import_module(f"{name}.__main__")
    os.environ["WORLD_SIZE"] = str(processes)
    try:
        module.parse_arguments(words)
    finally:
        del os.environ["WORLD_SIZE"]


def check(block: Block, folder) -> None:
    found = shell(block, folder)
    assert found.complaints == "", f"{block}: bash cannot run it"
    assert found.commands or block.text.startswith("export "), f"{block} runs nothing: {block.text}"
    for command in found.commands:
        foreign = next((words for words in FOREIGN if tuple(command[: len(words)]) == words), None)
        if foreign == ("sbatch",):
            check(block._replace(text=wrapped(command)), folder)
        elif foreign is None:
            assert command[0] in ("python", "torchrun"), f"{block}: neither ours nor among FOREIGN: {command}"
            parse(command)


@pytest.mark.parametrize("block", RUNNABLE, ids=str)
def test_every_command_of_the_pages_is_one_that_its_script_takes(block, tmp_path):
    check(block, tmp_path)


@pytest.mark.parametrize("block", [block for script in SCRIPTS for block in examples(ROOT / script)], ids=str)
def test_every_example_of_help_is_one_that_its_script_takes(block, tmp_path):
    check(block, tmp_path)


def test_pages_are_read_whole():
    """That nothing is found would otherwise be a success."""
    assert {block.page for block in RUNNABLE} == {page.name for page in PAGES}
    assert len(RUNNABLE) > 35
    for beginning in NO_COMMANDS:
        assert any(block.text.startswith(beginning) for block in EVERY), f"NO_COMMANDS allows {beginning!r}, which no page has"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("python eval.py last.pt --cityscapes $CITYSCAPES --no-such-flag", SystemExit),
        ("python train.py --train-on kitti", SystemExit),
        ("python -m scripts.absent", ModuleNotFoundError),
        ("git clone somewhere", AssertionError),
        ("python eval.py 'last.pt", AssertionError),
        ("# a remark", AssertionError),
        ("sbatch --wrap 'python eval.py'", SystemExit),
    ],
)
def test_the_check_can_fail(text, error, tmp_path):
    with pytest.raises(error):
        check(Block("page", 1, text), tmp_path)


def test_files_that_pip_reads_exist(tmp_path):
    for block in RUNNABLE:
        for command in shell(block, tmp_path).commands:
            if command[0] == "pip":
                assert (ROOT / command[-1]).is_file()


@pytest.mark.parametrize("name", ["demo.sh", "test.sh", "environment.sh", "check_gpu.sh"])
def test_shell_scripts_can_be_parsed(name):
    subprocess.run(["bash", "-n", ROOT / "scripts" / name], check=True)


def test_links_and_pictures_of_the_pages_exist():
    import re

    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", page.read_text()):
            target = "".join(target)
            assert "://" in target or (page.parent / target).exists(), f"{page.name} points to {target}"
