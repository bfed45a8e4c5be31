"""Every system runs evaluation, prediction and training; every installation says what it lacks."""

import ast
import importlib.machinery
import importlib.util
import re
import runpy
import shlex
import subprocess
import sys
from multiprocessing import context
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest

from dataset.gta5 import gta5
from dataset.loader import LoaderOptions, evaluation_loader, training_loader
from dataset.target_flags import TargetFlags
from dataset.training_data import (
    CropOptions,
    StyleOptions,
    TargetOptions,
    labelled_data,
    target_data,
)
from tests.helpers.cli import SMALL, run_train
from tests.helpers.forked import run_forked
from utils.training import distributed, environment

pytestmark = pytest.mark.usefixtures("narrow_networks")

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(
    path
    for path in (*(ROOT / "scripts").glob("*.py"), *(ROOT / "scripts").glob("*/__main__.py"))
    if path.name not in ("__init__.py", "baselines.py")
)
COMMANDS = [path for path in SCRIPTS if not path.with_suffix("").is_dir()]
"""Without the files that only answer for a package of their name."""

WINDOWS = """
import os, pkgutil, runpy, signal, sys

sys.path.insert(0, os.getcwd())
OURS = ("dataset", "model", "utils", "scripts", "train", "train_da", "eval", "tests")
for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
    del sys.modules[name]
for name in ("fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "ptflops"):  # slow: last
    sys.modules[name] = None
for name in ("SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGALRM"):
    delattr(signal, name)
for name in ("fork", "getppid", "sched_getaffinity", "sysconf", "posix_fadvise", "geteuid", "uname",
             "getpgid", "killpg", "setsid", "getloadavg"):
    delattr(os, name)
for package in OURS[:4]:
    found = __import__(package)
    for module in pkgutil.walk_packages(found.__path__, package + "."):
        if not module.name.endswith(("__main__", "app.page", "app.server")):  # optional: gradio
            __import__(module.name)
data, folder = sys.argv[1:3]
for command in (
    ["train", "--train-on", "source", "--gta5", data, "--output", folder, *sys.argv[3:]],
    ["eval", f"{folder}/r/last.pt", "--gta5", data, "--workers", "0", "--device", "cpu"],
    ["scripts.predict", f"{data}/images/00001.png", "--model", f"{folder}/r/last.pt", "--output",
     f"{folder}/pictures", "--device", "cpu"],
):
    sys.argv = command
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)
print("everything ran")
"""


def test_no_part_needs_what_windows_lacks(gta5_root, tmp_path):
    """All modules are imported, and training, evaluation and prediction run, without the modules,
    signals and functions that only POSIX has.
    """
    (tmp_path / "windows.py").write_text(WINDOWS)
    words = [*SMALL, "--max-steps", "1", "--name", "r", "--panel-every", "0"]
    done = run_forked(str(tmp_path / "windows.py"), gta5_root, tmp_path / "runs", *words)
    assert "everything ran" in done.stdout, done.stderr
    assert "cannot be locked" in done.stderr  # neither fcntl nor msvcrt here
    assert list((tmp_path / "runs/pictures").iterdir())


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_script_by_its_path_says_how(script):
    """python scripts/X.py cannot import the project: one line names python -m scripts.X."""
    module = script.parent if script.name == "__main__.py" else script.with_suffix("")
    with pytest.raises(SystemExit, match=rf"python -m scripts\.{module.name}$"):
        runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize(
    "script",
    [*COMMANDS, *(ROOT / f"{name}.py" for name in ("train", "train_da", "eval"))],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_every_script_shows_errors_with_their_remedy(script):
    """What a script does as a program happens within user_errors_without_traceback."""
    main = script.read_text().split('if __name__ == "__main__":\n')[1]
    assert re.search(r"^    with user_errors_without_traceback\(\):\n        ", main, re.MULTILINE)


def test_a_missing_package_is_named(monkeypatch):
    """Before anything else is imported, and without a traceback."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tqdm" else real(name)
    )
    monkeypatch.delitem(sys.modules, "tqdm")
    with pytest.raises(SystemExit, match=r"not installed .*: tqdm\. .*-r requirements.txt"):
        runpy.run_path(str(ROOT / "dataset/__init__.py"))


def test_opencv_without_libgl_names_the_headless_one(monkeypatch):
    class WithoutLibrary(importlib.machinery.PathFinder):
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            if name == "cv2":
                raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.delitem(sys.modules, "cv2")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(sys, "meta_path", [WithoutLibrary, *sys.meta_path])
    with pytest.raises(SystemExit, match=r"libGL.so.1.*opencv-python-headless"):
        runpy.run_path(str(ROOT / "dataset/__init__.py"))


def test_every_entry_looks_at_the_installation_first():
    """The first import of the project is dataset: before OpenCV and torch, if they come later."""
    for script in ("train.py", "train_da.py", "eval.py", "scripts/__init__.py"):
        lines = (ROOT / script).read_text().splitlines()
        ours = [line for line in lines if line.startswith(("from ", "import "))]
        first = next(line for line in ours if line.split()[1].split(".")[0] in FIRST_PARTY)
        assert first.split()[1].startswith("dataset"), script
        assert not any("cv2" in line for line in ours[: ours.index(first)]), script


FIRST_PARTY = {"dataset", "model", "utils", "scripts"}


def test_text_keeps_its_line_ends_in_every_clone():
    """Git for Windows writes CR LF, with which no shell script starts in WSL or a container."""
    lines = (ROOT / ".gitattributes").read_text().splitlines()
    assert "* text=auto eol=lf" in lines
    for script in (ROOT / "scripts").glob("*.sh"):
        assert b"\r" not in script.read_bytes()


def test_requirements_name_what_is_imported():
    """Pillow, the OpenCV that needs no desktop, a TensorBoard that starts without pkg_resources."""
    text = (ROOT / "requirements.txt").read_text()
    wanted = dict(line.split(">=") for line in text.split())
    assert {"pillow", "opencv-python-headless"} <= wanted.keys()
    assert "opencv-python" not in wanted
    assert tuple(map(int, wanted["tensorboard"].split("."))) >= (2, 21)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, 1),
        ({"WORLD_SIZE": "1"}, 1),
        ({"WORLD_SIZE": ""}, 1),
        ({"RANK": "3"}, 1),
        ({"WORLD_SIZE": "4"}, r"WORLD_SIZE=4 .*RANK, MASTER_ADDR.*torchrun.*unset WORLD_SIZE"),
        ({"WORLD_SIZE": "4", "RANK": "0"}, r"but MASTER_ADDR, MASTER_PORT are not"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'; expected a number"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'; expected a number"),
    ],
)
def test_the_variables_of_a_scheduler(values, expected, monkeypatch):
    """Not torchrun's: refused, or one process that is the first and writes."""
    for name in distributed._SET_BY_TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    if isinstance(expected, int):
        assert distributed.world_size() == expected
        assert distributed.ProcessGroup("cpu").is_first
    else:
        with pytest.raises(ValueError, match=expected):
            distributed.ProcessGroup("cpu")


def test_a_copy_in_another_repository_has_no_commit(tmp_path, monkeypatch):
    """The commit of the user's own repository is not that of the code."""
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-C", str(tmp_path)]
    code = tmp_path / "code/utils/training/environment.py"
    code.parent.mkdir(parents=True)
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(environment, "__file__", str(code))
    assert environment._git_revision() == "unknown"
    code = tmp_path / "utils/training/environment.py"
    monkeypatch.setattr(environment, "__file__", str(code))
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    assert environment._git_revision() == head.strip()


def test_the_printed_command_can_be_pasted(gta5_root, tmp_path, capsys):
    """Also where a folder has a space in its name."""
    words = ["--train-on", "source", "--gta5", gta5_root, "--max-steps", 1, "--panel-every", 0]
    folder = run_train(tmp_path / "My Drive", *words)
    line = next(line for line in capsys.readouterr().out.splitlines() if "eval.py" in line)
    assert str(folder / "last.pt") in shlex.split(line.split("with: ")[1])


SOURCES = [
    path
    for folder in ("", "dataset", "model", "utils", "scripts")
    for path in (ROOT / folder).glob("**/*.py" if folder else "*.py")
]
NO_FILES = {"os.open", "Image.open", "self.open"}
"""What is called open and opens no text."""
WORK_OF_WORKERS = {"in_processes", "Process", "DataLoader", "ProcessPoolExecutor", "submit"}


def calls(tree: ast.AST) -> list[tuple[ast.Call, str, dict[str, ast.expr]]]:
    """(call, what is called, its keywords) of all calls."""
    return [
        (node, ast.unparse(node.func), {word.arg: word.value for word in node.keywords})
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    ]


def texts_without_encoding(text: str) -> list[str]:
    """Calls that read or write text in the encoding of the system."""
    found = []
    for call, name, keywords in calls(ast.parse(text)):
        method = name.rsplit(".", 1)[-1]
        mode = ast.unparse(
            keywords.get("mode", call.args[1] if call.args[1:] else ast.Constant(""))
        )
        opens = method in ("open", "fdopen", "TemporaryFile", "NamedTemporaryFile")
        if (
            (opens and name not in NO_FILES and "b" not in mode)
            or method in ("read_text", "write_text", "TextIOWrapper")
            or {"text", "universal_newlines"} & set(keywords)
        ) and "encoding" not in keywords:
            found.append(ast.unparse(call))
    return found


def test_every_text_has_an_encoding():
    """That of Windows is not UTF-8: what one system writes, another would misread."""
    found = {path.name: texts_without_encoding(path.read_text("utf-8")) for path in SOURCES}
    assert len(found) > 100
    assert not {name: lines for name, lines in found.items() if lines}


@pytest.mark.parametrize(
    "line", ["open(p)", "open(p, 'w')", "p.read_text()", "p.open('r')", "run(c, text=True)"]
)
def test_the_encoding_law_can_fail(line):
    assert texts_without_encoding(line)
    assert not texts_without_encoding("open(p, 'rb'); Image.open(p); p.read_text(encoding='utf-8')")


def unpicklable_work(text: str) -> list[str]:
    """Lambdas and inner functions that are given to other processes."""
    tree, found = ast.parse(text), []
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inner = {
        node.name
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.FunctionDef) and node is not function
    }
    for call, name, keywords in calls(tree):
        if name.rsplit(".", 1)[-1] in WORK_OF_WORKERS and not name.startswith("threads."):
            given = [*call.args, *keywords.values()]
            parts = [node for value in given for node in ast.walk(value)]
            names = {node.id for node in parts if isinstance(node, ast.Name)}
            if names & inner or any(isinstance(node, ast.Lambda) for node in parts):
                found.append(ast.unparse(call))
    return found


def test_all_work_of_other_processes_pickles():
    """Windows, macOS and Python 3.14 send it: no lambdas, no functions within functions."""
    found = {path.name: unpicklable_work(path.read_text("utf-8")) for path in SOURCES}
    assert not {name: lines for name, lines in found.items() if lines}
    assert unpicklable_work("def f():\n  def g(): pass\n  in_processes(x, g, 2)")
    assert unpicklable_work("Process(target=lambda: 1)")


class Spawning:
    """Stands in for the child process that a start method is about to make."""

    DupFd = staticmethod(lambda handle: handle)
    duplicate_for_child = staticmethod(lambda handle: handle)


def test_all_data_of_workers_pickles(gta5_root, cityscapes_root):
    """Data sets of training and scoring with every option, and what loaders add to them."""
    crop = CropOptions((32, 64), (0.5, 1.0), 0.5, "random", True, 0.75, seed=0)
    lab = StyleOptions(lab=1.0, lab_class_balanced=True, fda=0.0, jitter=1.0, blur=1.0)
    fda = StyleOptions(lab=0.0, lab_class_balanced=False, fda=1.0, jitter=0.0, blur=0.0)
    source = gta5(gta5_root)
    target = TargetFlags(cityscapes=cityscapes_root).images("train")
    sets = [
        labelled_data(source, target, crop, lab, (0, 0, 0)),
        labelled_data(source, target, crop, fda, (0, 0, 0)),
        target_data(target, crop, TargetOptions("crops", (1.0,), (0.1, 0.1), 1.0), (0, 0, 0)),
        target_data(target, crop, TargetOptions("whole", None, None, None), (0, 0, 0)),
        evaluation_loader(source, LoaderOptions(0, False)).dataset,
    ]
    context.set_spawning_popen(Spawning())
    try:
        for dataset in sets:
            loader = training_loader(dataset, 2, range(1), LoaderOptions(1, False))
            everything = (dataset, loader.collate_fn, loader.worker_init_fn, loader.generator)
            assert len(ForkingPickler.dumps(everything)) > 100
    finally:
        context.set_spawning_popen(None)
