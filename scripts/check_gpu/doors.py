"""Runs the project's scripts by their command lines, inside this process.

There is no start-up time, and hooks of torch can be set.

Also what is common to the runs of all checks: generated streets, flags for short runs, and the
comparison of checkpoints.
"""

import contextlib
import io
import os
import runpy
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import torch
from torch import Tensor

from scripts.check_gpu.plan import Broken, Context
from utils.training.checkpoint import read_checkpoint

ROOT = Path(__file__).parents[2]
GAME_SIZE, CAMERA_SIZE = (1052, 1914), (1024, 2048)
"""(height, width) of GTA5's and of Cityscapes' frames."""
FRAMES = 12
"""Generated frames of full size: a core draws one in some seconds."""


class Both(io.StringIO):
    """Keeps what is written, and passes it on to the log at once."""

    def __init__(self, log: TextIO):
        super().__init__()
        self.log = log

    def write(self, text: str) -> int:
        self.log.write(text)
        self.log.flush()
        return super().write(text)


class Outcome(NamedTuple):
    """Exit status of a script, all that it printed, and the ``error`` that it ended with."""

    status: int
    output: str
    error: str = ""


def run_script(script: str, *arguments: object) -> Outcome:
    """Runs ``script`` ("train_da.py", "scripts.predict") as if it were called from a shell. Other
    exceptions than SystemExit pass through: a script that ends with a traceback has a fault. What
    it prints is passed on to standard error, which is the log.
    """
    printed, argv, folder = Both(sys.stderr), sys.argv, os.getcwd()
    sys.argv = [script, *map(str, arguments)]
    os.chdir(ROOT)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            if script.endswith(".py"):
                runpy.run_path(str(ROOT / script), run_name="__main__")
            else:
                runpy.run_module(script, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        return Outcome(
            status, printed.getvalue(), "" if isinstance(error.code, int) else str(error.code or "")
        )
    finally:
        sys.argv = argv
        os.chdir(folder)
    return Outcome(0, printed.getvalue())


def require_success(what: str, status: int, said: str) -> None:
    """Raises Broken with the end of what a script ``said`` where its exit status is not 0; the log
    has all of it.
    """
    if status:
        print(f"{what} ended with status {status}:\n{said}", file=sys.stderr, flush=True)
        raise Broken(f"{what} ended with status {status}: {said.strip()[-300:]}")


def run_process(what: str, command: Sequence[object], timeout_s: float | None = None) -> None:
    """Runs Python with the words of ``command`` in a process of its own.

    Raises Broken where it ends with an error; ``what`` names it there.
    """
    ended = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=timeout_s,
    )
    require_success(what, ended.returncode, ended.stderr)


def run_successfully(script: str, *arguments: object) -> str:
    """What the script printed. Raises Broken where it ended with an error."""
    outcome = run_script(script, *arguments)
    require_success(script, outcome.status, outcome.error or outcome.output)
    return outcome.output


def streets(context: Context, images: int = 8, size: tuple[int, int] | None = None) -> Path:
    """A folder with generated streets, drawn once: gta5/ and cityscapes/."""
    height, width = size or ((96, 192) if context.small else (256, 512))
    folder = context.folder / f"streets-{images}-{height}x{width}"
    counts = ["--source-images", images, "--target-train", images]
    counts += ["--target-val", max(2, images // 2)]
    if not (folder / "complete").exists():
        # In a process of its own: it draws in several, and who holds a GPU should not fork.
        script, size_words = "scripts.make_demo_data", ["--size", height, width]
        run_process(script, ["-m", script, "--output", folder, *counts, *size_words])
        (folder / "complete").touch()
    return folder


METHOD_FLAGS = {
    "light LAB": ("--discriminator", "light", "--lab"),
    "self-training": ("--method", "self-training"),
}


def flags(settings: dict[str, object]) -> list[str]:
    """{"crop_size": (64, 128)} -> ["--crop-size", "64", "128"]."""
    words = []
    for name, value in settings.items():
        values = value if isinstance(value, tuple) else (value,)
        words += ["--" + name.replace("_", "-"), *map(str, values)]
    return words


def training_flags(
    context: Context, device: str | None = None, precision: str = "fp32"
) -> list[str]:
    """Flags of train_da.py for a short run on generated streets; only the seed is random."""
    data = streets(context)
    settings = {"gta5": data / "gta5", "cityscapes": data / "cityscapes"}
    settings |= {"output": context.folder / "runs", "backbone": "resnet18"}
    settings |= {"backbone_weights": "none", "lr": 1e-2, "schedule_steps": 1000}
    settings |= {"crop_size": (64, 128) if context.small else (128, 256)}
    settings |= {"batch_size": 2 if context.small else 4, "workers": 0, "precision": precision}
    settings |= {"device": device or context.device.type}
    settings |= {"panel_every": 0, "save_every": 1000, "log_every": 1000}
    return flags(settings)


def train(
    context: Context,
    name: str,
    steps: int,
    *more: str,
    device: str | None = None,
    precision: str = "fp32",
) -> Path:
    """Runs train_da.py up to ``steps`` steps and returns its last.pt, replacing an older one.

    With "--resume" in ``more`` the run goes on instead. Raises Broken where training fails.
    """
    checkpoint = context.folder / "runs" / name / "last.pt"
    if "--resume" not in more:
        checkpoint.unlink(missing_ok=True)
    settings = training_flags(context, device, precision)
    run_successfully("train_da.py", *settings, "--name", name, "--max-steps", str(steps), *more)
    return checkpoint


def trained_checkpoint(context: Context) -> Path:
    """A light LAB-ADA network, trained for some steps in float32; one for all checks."""
    checkpoint = context.folder / "runs" / "trained" / "last.pt"
    if not checkpoint.exists():
        train(context, "trained", 4 if context.small else 40, *METHOD_FLAGS["light LAB"])
    return checkpoint


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Deterministic algorithms where torch has them. It warns of others: of our operations only the
    sum of the loss that is printed, which no gradient depends on. The environment needs
    CUBLAS_WORKSPACE_CONFIG, which the worker sets.

    Each place warns anew inside, so that the log of every check has its own warnings.
    """
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = benchmark


def tensors(value: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every tensor inside nested dicts and lists; numbers count as tensors."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from tensors(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, int | float):
        yield name, torch.tensor(value)


def differing_tensors(first: Path, second: Path) -> list[str]:
    """Names of all tensors of two checkpoints that are not equal bit for bit."""
    a, b = (dict(tensors(read_checkpoint(path)["parts"])) for path in (first, second))
    return sorted(a.keys() ^ b.keys()) + [
        name for name in a.keys() & b.keys() if not torch.equal(a[name], b[name])
    ]


def require_equal(first: Path, second: Path, what: str) -> None:
    """Raises Broken where two checkpoints are not equal bit for bit; ``what`` names them."""
    names = differing_tensors(first, second)
    if names:
        raise Broken(f"{what} differ in {len(names)} tensors, the first {names[0]}; expected none")


def relative_difference(first: Path, second: Path) -> float:
    """||a - b|| / ||b|| over all floating tensors of the models of two checkpoints."""
    a, b = (dict(tensors(read_checkpoint(path)["parts"]["model"])) for path in (first, second))
    names = [name for name, tensor in b.items() if tensor.is_floating_point()]
    flat_a, flat_b = (
        torch.cat([state[name].double().flatten() for name in names]) for state in (a, b)
    )
    return float((flat_a - flat_b).norm() / flat_b.norm())
