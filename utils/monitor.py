"""What a run is doing: its losses and whether they are still numbers."""

import torch
from torch import Tensor

from utils.distributed import Processes


class LossMeter:
    """Gathers losses on the device and reads them only when asked: a read makes a GPU wait for its host."""

    def __init__(self, processes: Processes):
        self.processes = processes
        self._steps: list[tuple[int, dict[str, Tensor], list[str]]] = []
        self._read: list[tuple[int, dict[str, Tensor], list[str]]] = []

    def add(self, step: int, losses: dict[str, Tensor], frames: list[str]) -> None:
        """``losses``: scalars; ``frames``: the names of the images that gave them, for the error message.

        A step may come in parts, of this process and of the others: their losses add up to those of the whole batch.
        """
        if self._steps and self._steps[-1][0] == step:
            _, before, seen = self._steps.pop()
            losses, frames = {name: before[name] + loss for name, loss in losses.items()}, seen + frames
        self._steps.append((step, losses, frames))

    def check(self) -> None:
        """Raises FloatingPointError when a step since the last ``read`` has losses that are not finite. All processes agree."""
        self._values()

    def read(self) -> dict[str, float]:
        """The means since the last read; checks them."""
        means = {name: value.mean().item() for name, value in self._values().items()}
        self._steps, self._read = [], self._steps
        return means

    def account(self) -> str:
        """A line for each step since the last read, or of the last read: its losses and frames."""
        steps = [(step, {name: loss.item() for name, loss in losses.items()}, frames) for step, losses, frames in self._steps or self._read]
        lines = [f"  step {step}: {losses} from the frames {frames}" for part in self.processes.gather(steps) for step, losses, frames in part]
        return "\n".join(lines)

    def _values(self) -> dict[str, Tensor]:
        """{name: (steps,)}, on the CPU, of the whole batches."""
        if not self._steps:
            return {}
        names = list(self._steps[0][1])
        table = torch.stack([torch.stack([losses[name] for name in names]) for _, losses, _ in self._steps]).float()  # (steps, names)
        table = self.processes.total(table).cpu()
        bad = (~table.isfinite()).any(1).nonzero()
        if len(bad):
            place = int(bad[0])
            found = dict(zip(names, table[place].tolist(), strict=True))
            raise FloatingPointError(
                f"Step {self._steps[place][0]} gave losses that are not finite: {found}. Nothing was saved since then. "
                f"Steps since the last look at the losses:\n{self.account()}\n"
                "Look at these frames, lower --lr, or try --precision fp32; the last checkpoint is from before and can be continued."
            )
        return dict(zip(names, table.t(), strict=True))


def not_finite(states: dict[str, dict]) -> list[str]:
    """The names of the tensors in state dicts that hold a NaN or an infinity. Waits for the device once."""
    found = {name: tensor for part, state in states.items() for name, tensor in _tensors(part, state)}
    if not found:
        return []
    norms = torch.stack([torch.linalg.vector_norm(tensor.detach(), float("inf")).to(torch.float64) for tensor in found.values()])
    good = norms.isfinite().tolist()
    return [name for name, finite in zip(found, good, strict=True) if not finite]


def _tensors(name: str, value: object):
    """(name, tensor) of every floating tensor of at least one axis inside nested dicts and lists."""
    if isinstance(value, Tensor) and value.is_floating_point() and value.ndim:
        yield name, value
    elif isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _tensors(f"{name}.{key}", item)
