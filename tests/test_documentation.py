"""Laws of README, docs and --help: each command is one that its script accepts, links are valid,
and the tree of folders is complete.

tests/test_documentation_runs.py also runs the commands for which tiny data is enough.
"""

import importlib
import itertools
import re
import subprocess
from pathlib import Path

import pytest

from tests.helpers.documentation import (
    PAGES,
    ROOT,
    SHELL_SCRIPTS,
    Block,
    code_blocks,
    help_examples,
    run_in_bash,
)

NOT_SHELL = {
    "import numpy, onnxruntime": "Python; tests/scripts/test_export.py does the same",
    "import torch\nnetwork": "Python; tests/scripts/test_export_program.py does the same",
    "train.py   ": "a tree of folders",
    "@misc{": "a citation",
    'from = "cityscapes19"': "a merge of classes; tests/dataset/test_merge.py",
    "$GTA5/images/": "a tree of files",
    "class_set = ": "a layout file; tests/dataset/test_layouts.py reads one like it",
}
"""Blocks of code that are not for a shell: {how the block begins: why}."""

EXTERNAL_COMMANDS = {
    ("python", "-c"): "the official evaluation; tests/test_eval_outputs.py runs it",
    ("pip", "install", "-r"): "test_requirement_files_exist",
    ("trtexec",): "TensorRT, which the page says was not available",
    ("ffmpeg",): "cuts a video into images",
    ("sbatch",): "a cluster's; the command that it wraps is parsed",
    ("./scripts/demo.sh",): "minutes; test_shell_scripts_have_valid_syntax",
    ("./scripts/test.sh",): "this suite",
    ("./scripts/check_gpu.sh",): "minutes; tests/scripts/test_check_gpu.py",
}
"""Commands of other programs: {their first words: what checks them instead}."""

FLAG = r"(?<![\w-])--[a-z][a-z0-9-]*"
OTHER_FLAGS = {"--fp16", "--id-type", "--logdir", "--no-deps", "--nodes", "--signal"}
"""Flags of trtexec, IDD's code, TensorBoard, pip and SLURM that the pages name."""
OLD_FLAGS = ("## Old words in the records", "## LAB copies")
"""Sections of the pages about flags that do not exist any more."""

PACKAGES = ("app", "benchmark", "describe", "export", "predict", "reproduce", "select", "summarise")
SCRIPTS = [
    *(ROOT / name for name in ("train.py", "train_da.py", "eval.py")),
    *(path for path in sorted((ROOT / "scripts").glob("*.py")) if path.stem not in PACKAGES),
    *(ROOT / f"scripts/{name}/__main__.py" for name in PACKAGES),
]
ALL_BLOCKS = [block for page in PAGES for block in code_blocks(page)]
SHELL_BLOCKS = [block for block in ALL_BLOCKS if not block.text.startswith(tuple(NOT_SHELL))]
HELP_EXAMPLES = [block for script in SCRIPTS for block in help_examples(script)]


def split_command(command: list[str]) -> tuple[str, list[str], int]:
    """The module that a command runs, its arguments, and the number of its processes."""
    if command[0] == "torchrun":
        script = next(index for index, word in enumerate(command) if word.endswith(".py"))
        options = dict(itertools.pairwise(command[1:script]))
        processes = int(options.get("--nproc-per-node", 1)) * int(options.get("--nnodes", 1))
        return command[script].removesuffix(".py"), command[script + 1 :], processes
    if command[1] == "-m":
        return command[2], command[3:], 1
    return command[1].removesuffix(".py"), command[2:], 1


def sbatch_command(command: list[str]) -> str | None:
    """The shell command that sbatch is to run, or None."""
    return command[command.index("--wrap") + 1] if "--wrap" in command else None


def is_external(command: list[str]) -> bool:
    return any(tuple(command[: len(words)]) == words for words in EXTERNAL_COMMANDS)


def parse(command: list[str], monkeypatch) -> None:
    """Parses a command with its own script, which exits (SystemExit) for wrong arguments."""
    name, arguments, processes = split_command(command)
    module = importlib.import_module(name)
    if hasattr(module, "__path__"):  # a package, whose __main__ is the script
        module = importlib.import_module(f"{name}.__main__")
    for variable in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(variable, "0")
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    module.parse_arguments(arguments)


def check(block: Block, folder: Path, monkeypatch) -> None:
    """Raises unless bash can run the block and each command's own script accepts it."""
    result = run_in_bash(block, folder)
    assert result.errors == "", f"{block}: bash cannot run it"
    if any(folder.glob("*.toml")):  # what the block wrote
        monkeypatch.chdir(folder)
    only_variables = block.text.startswith("export ")
    assert result.commands or only_variables, f"{block} runs nothing: {block.text}"
    for command in result.commands:
        if command[0] == "sbatch":
            check(block._replace(text=sbatch_command(command)), folder, monkeypatch)
        elif not is_external(command):
            known = command[0] in ("python", "torchrun")
            assert known, f"{block}: neither ours nor in EXTERNAL_COMMANDS: {command}"
            parse(command, monkeypatch)


@pytest.mark.parametrize("block", SHELL_BLOCKS, ids=str)
def test_every_command_of_the_pages_is_accepted(block, tmp_path, monkeypatch):
    """The script of every command in the pages accepts its arguments."""
    check(block, tmp_path, monkeypatch)


@pytest.mark.parametrize("block", HELP_EXAMPLES, ids=str)
def test_every_example_of_help_is_accepted(block, tmp_path, monkeypatch):
    """The script of every example in --help accepts its arguments."""
    check(block, tmp_path, monkeypatch)


def test_the_commands_of_every_page_are_found():
    """Every page has commands, and NOT_SHELL has no entry that matches nothing."""
    assert {block.page for block in SHELL_BLOCKS} == {page.name for page in PAGES}
    assert len(SHELL_BLOCKS) > 35
    for beginning in NOT_SHELL:
        found = any(block.text.startswith(beginning) for block in ALL_BLOCKS)
        assert found, f"NOT_SHELL has {beginning!r}, which begins no block of the pages"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("python eval.py last.pt --cityscapes $CITYSCAPES --no-such-flag", SystemExit),
        ("python train.py --train-on kitti", SystemExit),
        ("python -m scripts.absent", ModuleNotFoundError),
        ("git clone somewhere", AssertionError),
        ("python eval.py 'last.pt", AssertionError),
        ("# a comment", AssertionError),
        ("sbatch --wrap 'python eval.py'", SystemExit),
    ],
)
def test_a_wrong_command_is_found(text, error, tmp_path, monkeypatch):
    """The check of the pages fails for wrong flags, scripts, programs and quotes."""
    with pytest.raises(error):
        check(Block("page", 1, text), tmp_path, monkeypatch)


def test_requirement_files_exist(tmp_path):
    """Every file that a page gives to pip exists."""
    for block in SHELL_BLOCKS:
        for command in run_in_bash(block, tmp_path).commands:
            if command[0] == "pip":
                assert (ROOT / command[-1]).is_file()


@pytest.mark.parametrize("path", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_have_valid_syntax(path):
    """bash can parse the shell scripts."""
    subprocess.run(["bash", "-n", path], check=True)


def declared_flags(capsys) -> set[str]:
    """The flags that --help and --help-all of all scripts show."""
    modules = [
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in SCRIPTS
    ]
    modules.append("scripts.check_gpu.__main__")  # no example of its help can run here
    subcommands = [[name] for name in ("data", "evaluation", "methods", "model", "train")]
    for module in map(importlib.import_module, modules):
        if not hasattr(module, "parse_arguments"):
            continue
        starts = subcommands if module.__name__.startswith("scripts.benchmark") else [[]]
        for start, flag in itertools.product(starts, ("--help", "--help-all")):
            with pytest.raises(SystemExit):
                module.parse_arguments([*start, flag])
    return set(re.findall(FLAG, capsys.readouterr().out))


def flags_in_text(page: Path) -> set[str]:
    """The flags that the text of a page names in backticks, without OLD_FLAGS."""
    sections = re.split(r"^(?=## )", page.read_text(), flags=re.MULTILINE)
    text = "".join(section for section in sections if not section.startswith(OLD_FLAGS))
    text = re.sub(r"^    .*$", "", text, flags=re.MULTILINE)
    return set(re.findall(FLAG, " ".join(re.findall(r"`[^`\n]+`", text))))


def test_flags_named_in_the_pages_exist(capsys):
    """Every flag that a page names in its text is a flag of some script."""
    known = declared_flags(capsys) | OTHER_FLAGS
    unknown = {page.name: flags_in_text(page) - known for page in PAGES}
    assert not any(unknown.values()), f"flags that no script has: {unknown}"


def anchors(page: Path) -> set[str]:
    """The names that links to the headings of a page use, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page):
    """Every link of a page leads to an existing file and heading, every picture exists."""
    for link, source in re.findall(r"\]\(([^)]+)\)|src=\"([^\"]+)\"", page.read_text()):
        target, _, anchor = (link or source).partition("#")
        if "://" in target:
            continue
        path = page.parent / target if target else page
        assert path.exists(), f"{page.name} points to {target}, which does not exist"
        if anchor:
            assert anchor in anchors(path), f"{page.name} points to #{anchor}, not in {path.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_named_in_a_page_exist(page):
    """Every file and folder of the project that a page names in backticks exists."""
    pattern = r"`((?:dataset|docs|model|scripts|tests|utils)/[\w/.-]*)`"
    for name in re.findall(pattern, page.read_text()):
        assert (ROOT / name).exists(), f"{page.name} names {name}, which does not exist"


def readme_tree() -> set[str]:
    """The folders in the README's tree, such as "model/losses"."""
    text = next(block.text for block in code_blocks(PAGES[0]) if block.text.startswith("train.py "))
    folders, parents = set(), []
    for line in text.splitlines():
        name = line.split()[0]
        if name.endswith("/"):
            depth = (len(line) - len(line.lstrip())) // 4
            parents = [*parents[:depth], name.rstrip("/")]
            folders.add("/".join(parents))
    return folders


def test_the_tree_of_the_readme_is_complete():
    """The README's tree names every folder of the code, and no folder that does not exist."""
    tree = readme_tree()
    absent = {folder for folder in tree if not (ROOT / folder).is_dir()}
    assert not absent, f"the README's tree names folders that do not exist: {absent}"
    folders = {
        path.parent.relative_to(ROOT).as_posix()
        for leaf in ("dataset", "model", "scripts", "utils")
        for suffix in ("py", "toml", "txt")
        for path in (ROOT / leaf).rglob(f"*.{suffix}")
    }
    assert folders <= tree, f"the README's tree lacks {folders - tree}"
