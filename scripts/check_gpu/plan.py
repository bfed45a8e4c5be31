"""What a check is: a function that measures something or proves a law, with a time limit."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

STEPS = ("laws", "training", "inference", "method")
"""In the order of their worth, which is the order in which they run."""

CORE_SHARE = {
    "cuda": {"laws": 0.35, "training": 0.25, "inference": 0.15, "method": 0.25},
    "cpu": {"laws": 0.25, "training": 0.2, "inference": 0.15, "method": 0.4},
}
"""Fraction of the whole time in which the core of each step may begin; what a step leaves goes to
the next. On a CPU starting processes takes most of the time.
"""
RESTART = 75
"""Exit status of a worker whose last check left CUDA unusable: a fresh worker goes on."""


class Context(NamedTuple):
    """Where a check runs and what it may use.

    ``folder``: its own files may go there and are shared by the checks of a run. ``small``: sizes
    for a CPU. ``seconds``: how long the check may take; it is stopped later, unless no time is left
    at all. ``gta5``, ``cityscapes``: roots of the real data, or None.
    """

    device: torch.device
    folder: Path
    small: bool
    seconds: float
    gta5: Path | None = None
    cityscapes: Path | None = None

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"


class Finding(NamedTuple):
    """Outcome of a check: ``text`` for the table, ``figures`` with units in their names."""

    text: str
    figures: dict = {}  # noqa: RUF012 (never written to)


class Broken(Exception):
    """A law that does not hold: the message says what was found and what was expected."""


class NotHere(Exception):
    """The check cannot run on this machine: the message says what it needs."""


class Check(NamedTuple):
    """``run(context)`` returns a Finding, or raises Broken, NotHere, or whatever fails.

    ``core``: part of the shortest run. ``alone``: needs a fresh process. ``limit_s``: it is stopped
    after so many seconds. ``fills``: takes all seconds that it is given, which are its step's share
    of the minutes. ``least_s``: with less time left it is not begun on a GPU.
    """

    step: str
    name: str
    run: Callable[[Context], Finding]
    core: bool = True
    limit_s: float = 60
    alone: bool = False
    fills: bool = False
    least_s: float = 0

    @property
    def key(self) -> str:
        return f"{self.step}/{self.name}"


def require_gpu(context: Context) -> None:
    """Raises NotHere on a CPU."""
    if not context.on_gpu:
        raise NotHere("needs CUDA")


def expect_at_most(value: float, limit: float, what: str) -> str:
    """A text with ``value`` and ``limit``; raises Broken where the value is larger, or NaN."""
    text = f"{what} {value:.1e}, at most {limit:.0e}"
    if not value <= limit:
        raise Broken(text)
    return text
