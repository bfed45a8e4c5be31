"""What a run is doing: its losses and whether they are still numbers, where its time goes, how the
two networks stand.
"""

import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from utils.training.distributed import ProcessGroup


class LossMeter:
    """Gathers losses on the device and reads them only when asked: a read makes a GPU wait for its
    host.
    """

    def __init__(self, processes: ProcessGroup):
        self.processes = processes
        self._steps: list[tuple[int, dict[str, Tensor], list[str]]] = []
        self._read: list[tuple[int, dict[str, Tensor], list[str]]] = []

    def add(self, step: int, losses: dict[str, Tensor], frames: list[str]) -> None:
        """``losses``: scalars; ``frames``: the names of the images that gave them, for the error
        message.

        A step may come in parts, of this process and of the others: their losses add up to those of
        the whole batch.
        """
        if self._steps and self._steps[-1][0] == step:
            _, before, seen = self._steps.pop()
            losses, frames = (
                {name: before[name] + loss for name, loss in losses.items()},
                seen + frames,
            )
        self._steps.append((step, losses, frames))

    def check(self) -> None:
        """Raises FloatingPointError when a step since the last ``read`` has losses that are not
        finite. All processes agree.
        """
        self._values()

    def read(self) -> dict[str, float]:
        """The means since the last read; checks them."""
        means = {name: value.mean().item() for name, value in self._values().items()}
        self._steps, self._read = [], self._steps
        return means

    def recent_steps(self) -> str:
        """A line for each step since the last read, or of the last read: its losses and frames."""
        steps = [
            (step, {name: loss.item() for name, loss in losses.items()}, frames)
            for step, losses, frames in self._steps or self._read
        ]
        lines = [
            f"  step {step}: {losses} from the frames {frames}"
            for part in self.processes.gather(steps)
            for step, losses, frames in part
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
            place = int(bad[0])
            found = dict(zip(names, table[place].tolist(), strict=True))
            raise FloatingPointError(
                f"Step {self._steps[place][0]} gave losses that are not finite: {found}. Nothing"
                " was saved since then. Steps since the last look at the"
                f" losses:\n{self.recent_steps()}\nLook at these frames, lower --lr, or try --precision"
                " fp32; the last checkpoint is from before and can be continued."
            )
        return dict(zip(names, table.t(), strict=True))


def not_finite(states: dict[str, dict]) -> list[str]:
    """The names of the tensors in state dicts that hold a NaN or an infinity. Waits for the device
    once.
    """
    found = {
        name: tensor for part, state in states.items() for name, tensor in _tensors(part, state)
    }
    if not found:
        return []
    norms = torch.stack(
        [
            torch.linalg.vector_norm(tensor.detach(), float("inf")).to(torch.float64)
            for tensor in found.values()
        ]
    )
    good = norms.isfinite().tolist()
    return [name for name, finite in zip(found, good, strict=True) if not finite]


def _tensors(name: str, value: object):
    """(name, tensor) of every floating tensor of at least one axis inside nested dicts and
    lists.
    """
    if isinstance(value, Tensor) and value.is_floating_point() and value.ndim:
        yield name, value
    elif isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _tensors(f"{name}.{key}", item)


class StepTimer:
    """Iterates over (step, batch) behind a progress bar, and tells how long steps wait for their
    data and how long they compute.

    ``show``: False for a process that is to stay silent. Time between a ``read`` and the next step,
    which saves and validates, counts as neither. On a GPU the figures are right at a read that
    follows a look at the losses: the host runs ahead in between.
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
            if self._steps == 0:  # read in this step
                self._start = begin

    def read(self, done: int) -> dict[str, float]:
        """Means since the last read: seconds a step waiting and computing, images per second; and
        the hours left after ``done`` steps.
        """
        steps, seconds = max(1, self._steps), time.perf_counter() - self._start
        waited, self._waited, self._steps = self._waited, 0.0, 0
        return {
            "time/data_wait_s": waited / steps,
            "time/compute_s": (seconds - waited) / steps,
            "time/images_per_second": self._images * steps / seconds,
            "time/hours_left": (self._last_step - done) * seconds / steps / 3600,
        }


MOST_PANELS = 40
"""Pictures that a run leaves in TensorBoard, each at most some hundred kB."""


def panel_interval(every: int, steps: int, pictures: int) -> int:
    """The interval in steps, at least ``every``, at which ``pictures`` each time and at step 0 make
    no more than MOST_PANELS a run.
    """
    return max(every, math.ceil(steps / (MOST_PANELS // pictures - 1)))
