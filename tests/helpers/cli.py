"""Starting the scripts on tiny data, as processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

SMALL = [
    "--backbone",
    "resnet18",
    "--backbone-weights",
    "none",
    "--crop-size",
    "64",
    "64",
    "--device",
    "cpu",
    "--precision",
    "fp32",
]
SMALL += ["--workers", "0", "--log-every", "1", "--panel-every", "0"]


def python(processes: int = 1) -> list[str]:
    """What starts a script: this interpreter, or torchrun for several processes."""
    return (
        [sys.executable]
        if processes == 1
        else [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={processes}",
        ]
    )


def command(
    script: str, gta5: Path, cityscapes: Path, output: Path, *arguments: object, processes: int = 1
) -> list[str]:
    """The command line of ``script`` ("train" or "train_da"), its run folder ``output``/run."""
    data = (
        ["--cityscapes", cityscapes]
        if script == "train"
        else ["--cityscapes", cityscapes, "--gta5", gta5]
    )
    data += ["--train-on", "cityscapes", "--validate-every", 0] if script == "train" else []
    return list(
        map(
            str,
            [
                *python(processes),
                f"{script}.py",
                *SMALL,
                *data,
                "--output",
                output,
                "--name",
                "run",
                *arguments,
            ],
        )
    )


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess:
    """Runs ``command(...)`` to its end."""
    return subprocess.run(
        command(*arguments, **options),
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
