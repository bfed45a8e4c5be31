"""Starting train.py and train_da.py on tiny data: in this process, or in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import train
import train_da

SMALL = [
    *("--backbone", "resnet18", "--backbone-weights", "none", "--crop-size", "64", "64"),
    *("--batch-size", "2", "--workers", "0", "--device", "cpu", "--precision", "fp32"),
    *("--log-every", "1"),
]
"""A step of these takes a quarter of a second; flags given after them win."""


def start(script: str, *words: object) -> None:
    """Runs ``script`` ("train" or "train_da") in this process; raises its errors."""
    argv = list(map(str, words))
    if script == "train":
        train.train(train.parse_arguments(argv))
    else:
        train_da.adapt(train_da.parse_arguments(argv))


def run_train(output: Path, *arguments: object) -> Path:
    """Trains in this process; returns the run folder, ``output``/run."""
    start("train", *SMALL, "--output", output, "--name", "run", *arguments)
    return output / "run"


def run_train_da(output: Path, *arguments: object) -> Path:
    """Adapts in this process; returns the run folder, ``output``/run."""
    start("train_da", *SMALL, "--output", output, "--name", "run", *arguments)
    return output / "run"


def words(
    script: str, gta5: Path, cityscapes: Path, output: Path, *arguments: object
) -> list[object]:
    """The flags of a run of ``script`` ("train": on Cityscapes, "train_da") into ``output``/run,
    without pictures.
    """
    data = {
        "train": ["--train-on", "cityscapes", "--validate-every", 0],
        "train_da": ["--gta5", gta5],
    }[script]
    place = ["--cityscapes", cityscapes, "--output", output, "--name", "run"]
    return [*SMALL, "--panel-every", 0, *data, *place, *arguments]


def python(processes: int = 1) -> list[str]:
    """What starts a script: this interpreter, or torchrun for several processes."""
    if processes == 1:
        return [sys.executable]
    options = ["--standalone", f"--nproc-per-node={processes}"]
    return [sys.executable, "-m", "torch.distributed.run", *options]


def command(script: str, *arguments: object, processes: int = 1) -> list[str]:
    """The command line of ``script`` with ``words(script, *arguments)``."""
    line = [*python(processes), f"{script}.py", *words(script, *arguments)]
    return list(map(str, line))


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess:
    """Runs ``command(...)`` to its end, in an interpreter of its own."""
    return subprocess.run(
        command(*arguments, **options),
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
