"""eval.py under torchrun: the processes share the images, and what comes out is what one process
gives, bit for bit.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import write_cityscapes
from tests.helpers.cli import python
from tests.helpers.forked import run_together
from tests.helpers.narrow import real_backbones
from tests.helpers.networks import write_checkpoint

pytestmark = pytest.mark.usefixtures("narrow_networks")

COMMON = ["--device", "cpu", "--precision", "fp32", "--workers", "0"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def command(checkpoint: Path, root: Path, *words: object, processes: int) -> list[str]:
    """The command line of eval.py, under torchrun if there are several processes."""
    line = [*python(processes), "eval.py", checkpoint, "--cityscapes", root, *COMMON, *words]
    return list(map(str, line))


def score(checkpoint: Path, root: Path, *words: object, processes: int) -> str:
    """Runs eval.py to its end and returns what it printed."""
    line = [checkpoint, "--cityscapes", root, *COMMON, *words]
    done = run_together("eval.py", *line, processes=processes)
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return write_checkpoint(tmp_path / "run/last.pt")


@pytest.fixture
def root(tmp_path) -> Path:
    """13 images: an odd number, more than the contact sheet of the worst shows, and with shares of
    both processes among them.
    """
    return write_cityscapes(tmp_path / "thirteen", {"val": 13})


def test_two_processes_give_the_tables_files_and_pictures_of_one(checkpoint, root, tmp_path):
    printed = {}
    for processes in (1, 2):
        out = tmp_path / f"out{processes}"
        results = ["--json", out / "scores.json", "--pictures", out / "pictures"]
        results += ["--save-predictions", out / "predictions"]
        words = [checkpoint, root, "--tta", "flip", *results]
        printed[processes] = score(*words, processes=processes)
    alone, together = (contents(tmp_path / f"out{processes}") for processes in (1, 2))
    assert printed[2] == printed[1]  # by one process only
    assert len(alone) == 13 + 2 + 1
    assert together.keys() == alone.keys()
    for name, content in alone.items():
        if name != "scores.json":
            assert together[name] == content, name
    first, second = (json.loads(found["scores.json"]) for found in (alone, together))
    assert first.pop("argv") != second.pop("argv")  # the folders
    assert first == second
    row = json.loads(alone["scores.json"])["rows"][0]
    assert sum(map(sum, row["matrix"])) + row["ignored"] == 13 * 64 * 128
    assert row["ignored"] > 0


def test_more_processes_than_images_predict_the_test_split(checkpoint, root, tmp_path):
    (root / "leftImg8bit/val").rename(root / "leftImg8bit/test")
    (tmp_path / "two.txt").write_text(
        "".join(f"lindau/lindau_{number:06}_000019_leftImg8bit.png\n" for number in (4, 9))
    )
    words = ["--split", "test", "--list", tmp_path / "two.txt", "--save-predictions"]
    score(checkpoint, root, *words, tmp_path / "alone", processes=1)
    printed = score(checkpoint, root, *words, tmp_path / "together", processes=3)
    assert printed.count("2 predictions in") == 1
    assert len(contents(tmp_path / "alone")) == 2
    assert contents(tmp_path / "together") == contents(tmp_path / "alone")


@pytest.mark.slow
@real_backbones()
def test_a_process_that_dies_takes_the_evaluation_down(tmp_path):
    """Under torchrun itself, whose processes have the real network."""
    checkpoint = write_checkpoint(tmp_path / "real.pt")
    root = write_cityscapes(tmp_path / "many", {"val": 80})
    words = [
        "--tta",
        "multiscale",
        "--save-predictions",
        tmp_path / "predictions",
        "--json",
        tmp_path / "scores.json",
    ]
    process = subprocess.Popen(
        command(checkpoint, root, *words, processes=2),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("predictions/*.png")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
    ).stdout.split()
    assert len(children) == 2
    os.kill(int(children[1]), signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert b"SIGKILL" in errors
    assert not (tmp_path / "scores.json").exists()
