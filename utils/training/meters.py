"""Loss averages, NaN checks, and step timing."""

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from utils.training.distributed import ProcessGroup

NOT_FINITE_REMEDY = (
    "A checkpoint that was saved before is intact. --resume would only repeat its steps: start"
    " another run, or go on from the checkpoint in one (--init FILE, and another --name), with a"
    " lower --lr or with --precision fp32."
)


class LossMeter:
    """Collects losses on the device. Reading them waits for the device, so it is done rarely."""

    def __init__(self, processes: ProcessGroup):
        self.processes = processes
        self._steps: list[tuple[int, dict[str, Tensor], list[str]]] = []
        self._read: list[tuple[int, dict[str, Tensor], list[str]]] = []

    def add(self, step: int, losses: dict[str, Tensor], image_names: list[str]) -> None:
        """Notes detached scalars and the names of the images that gave them (for error messages).

        The losses of micro-batches and processes add up to those of the whole batch.
        """
        if self._steps and self._steps[-1][0] == step:
            _, before, seen = self._steps.pop()
            losses = {name: before[name] + loss for name, loss in losses.items()}
            image_names = seen + image_names
        self._steps.append((step, losses, image_names))

    def check(self) -> None:
        """Raises FloatingPointError for losses since the last ``read`` that are not finite."""
        self._values()

    def read(self) -> dict[str, float]:
        """The means of the interval, since the last ``forget``; checks them."""
        return {name: value.mean().item() for name, value in self._values().items()}

    def forget(self) -> None:
        """Begins a new interval: what was noted so far has been read."""
        self._steps, self._read = [], self._steps

    def keep_whole_steps(self, done: int) -> None:
        """Drops what was noted of a step that did not end: ``done`` steps did."""
        self._steps = [noted for noted in self._steps if noted[0] < done]

    def continue_alone(self) -> None:
        """Waits for no other process from now on; drops the losses, which are of all of them.

        Raises FloatingPointError for losses of this process that are not finite.
        """
        self.processes = self.processes.alone()
        self.check()
        self._steps = []

    def state(self) -> dict[str, Any]:
        """The losses since the last read, of the whole batches, as plain values."""
        values = {name: value.tolist() for name, value in self._values().items()}
        return {"steps": [step for step, _, _ in self._steps], "values": values}

    def restore(self, state: dict[str, Any] | None, device: torch.device) -> None:
        """Takes over what ``state`` gave; the processes' values add up to it."""
        share = 1.0 if self.processes.is_first else 0.0
        for index, step in enumerate(state["steps"] if state else ()):
            losses = {
                name: torch.tensor(share * values[index], device=device)
                for name, values in state["values"].items()
            }
            self._steps.append((step, losses, []))

    def recent_steps(self) -> str:
        """A line for each step since the last read, or of the last read: its losses and images."""
        steps = [
            (step, {name: loss.item() for name, loss in losses.items()}, image_names)
            for step, losses, image_names in self._steps or self._read
        ]
        lines = [
            f"  step {step}: {losses} from the images {image_names}"
            for part in self.processes.gather(steps)
            for step, losses, image_names in part
        ]
        return "\n".join(lines)

    def _values(self) -> dict[str, Tensor]:
        """{name: (steps,)}, on the CPU, of the whole batches."""
        if not self._steps:
            return {}
        names = list(self._steps[0][1])
        table = torch.stack(
            [torch.stack([losses[name] for name in names]) for _, losses, _ in self._steps]
        ).float()  # (steps, names)
        table = self.processes.all_reduce_sum(table).cpu()
        bad = (~table.isfinite()).any(1).nonzero()
        if len(bad):
            row = int(bad[0])
            found = dict(zip(names, table[row].tolist(), strict=True))
            raise FloatingPointError(
                f"Step {self._steps[row][0]} gave losses that are not finite: {found}. Nothing"
                " was saved since then. Steps since the last look at the"
                f" losses:\n{self.recent_steps()}\nLook at these images. {NOT_FINITE_REMEDY}"
            )
        return dict(zip(names, table.t(), strict=True))


def not_finite(states: dict[str, dict]) -> list[str]:
    """Names of the tensors in state dicts that hold NaN or infinity. Waits for the device once."""
    found = dict(pair for part, state in states.items() for pair in _tensors(part, state))
    if not found:
        return []
    maxima = (torch.linalg.vector_norm(t.detach(), float("inf")) for t in found.values())
    norms = torch.stack([maximum.to(torch.float64) for maximum in maxima])
    good = norms.isfinite().tolist()
    return [name for name, finite in zip(found, good, strict=True) if not finite]


def _tensors(name: str, value: object):
    """(name, tensor) of every floating tensor, scalars excepted, in nested dicts and lists."""
    if isinstance(value, Tensor) and value.is_floating_point() and value.ndim:
        yield name, value
    elif isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _tensors(f"{name}.{key}", item)


class StepTimer:
    """Iterates over (step, batch) with a progress bar, and measures waiting and computing.

    ``show``: whether this process shows the bar. Time that is ``paused``, for saving and
    validation, is not counted. On a GPU, read the losses first: that waits for the device, which
    otherwise lags behind the clock.
    """

    def __init__(
        self, batches: Iterable, first_step: int, last_step: int, images_per_step: int, show: bool
    ):
        self._first_step, self._last_step, self._images = first_step, last_step, images_per_step
        options = {"initial": first_step, "total": last_step, "unit": "step", "dynamic_ncols": True}
        self.bar = tqdm(batches, disable=None if show else True, **options)
        self._steps, self._waited, self._start = 0, 0.0, time.perf_counter()

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        begin = self._start = time.perf_counter()
        for step, batch in enumerate(self.bar, start=self._first_step):
            self._waited += time.perf_counter() - begin
            self._steps += 1
            yield step, batch
            begin = time.perf_counter()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time inside ``with`` out, between two reads or after one."""
        begin = time.perf_counter()
        yield
        self._start += time.perf_counter() - begin

    def read(self, done: int) -> dict[str, float]:
        """Means since the last read, in seconds per step and images per second; hours left."""
        now = time.perf_counter()
        steps, seconds = max(1, self._steps), now - self._start
        waited, self._waited, self._steps, self._start = self._waited, 0.0, 0, now
        return {
            "time/data_wait_s": waited / steps,
            "time/compute_s": (seconds - waited) / steps,
            "time/images_per_second": self._images * steps / seconds,
            "time/hours_left": (self._last_step - done) * seconds / steps / 3600,
        }


MAX_PICTURES = 40
"""Pictures that a run leaves in TensorBoard, each at most some hundred kB."""


def panel_interval(every: int, steps: int, pictures: int) -> int:
    """Interval in steps, at least ``every``, that gives at most MAX_PICTURES pictures in a run.

    ``pictures`` are drawn each time, and at the first step.
    """
    return max(every, math.ceil(steps / (MAX_PICTURES // pictures - 1)))
