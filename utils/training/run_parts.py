"""What a TrainingRun is given: its options, the networks, their data, and how it is shown."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from utils.training.checkpoint import Stateful


class StepData(Protocol):
    """The batches of one domain (dataset.training_data.DomainBatches)."""

    domain: str
    batch_size: int
    has_labels: bool

    def __len__(self) -> int: ...
    def batches(self, steps: range) -> Iterable[Any]: ...
    def names(self, sample: Any) -> list[str]: ...


class BatchCounts(Protocol):
    """Loss weights that depend on the whole batch (model.losses.segmentation)."""

    def begin_counting(self) -> None: ...
    def begin_micro_batch(self) -> None: ...
    def end_counting(self) -> None: ...
    def forget_counts(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Flags of the training scripts: where a run is stored, micro-batches, intervals."""

    output: Path
    resume: bool
    accumulate: int
    log_every: int
    save_every: int
    panel_every: int
    keep_every: int
    keep_last: int | None
    validate_every: int
    flag_defaults: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Plain default values of the flags, for runs that are older than a flag."""


class TrainedNetworks(NamedTuple):
    """What a run trains, and with what.

    ``networks`` are trained beside ``model``. ``optimizers`` of all of them, the model's first,
    under "optimizer". ``state``: everything that a checkpoint holds. ``batch_counts``: loss
    weights that depend on the whole batch, or None.
    """

    model: nn.Module
    optimizers: dict[str, Optimizer]
    state: dict[str, Any]
    networks: Mapping[str, nn.Module] = MappingProxyType({})
    batch_counts: BatchCounts | None = None

    def require_saved_pairs(self) -> None:
        """Raises ValueError where a network has no optimizer, or would be lost on resume."""
        own = [name for name in self.optimizers if name != "optimizer"]
        if len(own) != len(self.networks):
            raise ValueError(
                f"The method trains the networks [{', '.join(self.networks)}] with the optimizers"
                f" [{', '.join(own)}]. Expected one optimizer for each network, in the same order;"
                " a network without one, such as a teacher, belongs to state() alone."
            )
        if lost := [name for name in (*self.networks, *own) if name not in self.state]:
            raise ValueError(
                f"state() of the method lacks {', '.join(lost)}, which a resumed run would begin"
                " anew. Return super().state() | {...}."
            )


class CollapseMonitor(Stateful, Protocol):
    """Monitors predictions on the target (model.uda.collapse_monitor.CollapseMonitor)."""

    earliest_warning: int

    def after_step(self, done: int) -> None: ...
    def scalars(self) -> dict[str, float]: ...
    def warnings(self) -> list[str]: ...


class MonitorOptions(NamedTuple):
    """How the progress of a run is shown: pictures, warnings, scores.

    ``predict``: images (N, H, W, 3) uint8 -> class maps (N, H, W) uint8. ``class_names`` and
    ``colors`` (256, 3) uint8 of the classes. ``warnings(step, values)`` of the logged scalars;
    ``start_warnings(metadata)`` are known before. ``validation``: labelled batches that are
    scored, or None. ``collapse_monitor`` warns when a class collapses on the target; with
    ``stop_on_collapse`` the run is then saved and ends. ``monitors``: others that a resumed run
    continues, by their names in a checkpoint.
    """

    predict: Callable[[Tensor], Tensor]
    class_names: Sequence[str]
    colors: np.ndarray
    warnings: Callable[[int, dict[str, float]], list[str]] = lambda _step, _values: []
    validation: Iterable | None = None
    start_warnings: Callable[[dict[str, Any]], list[str]] = lambda _metadata: []
    collapse_monitor: CollapseMonitor | None = None
    stop_on_collapse: bool = False
    monitors: Mapping[str, Stateful] = MappingProxyType({})

    def unreached(self, max_steps: int, warmup: int) -> list[str]:
        """Notes on what a run of ``max_steps`` steps is too short for."""
        notes = []
        if warmup >= max_steps:
            notes.append(
                f"NOTE: --warmup {warmup} leaves none of the {max_steps} steps at its end: the"
                " learning rate does not reach --lr."
            )
        earliest = self.collapse_monitor.earliest_warning if self.stop_on_collapse else 0
        if earliest >= max_steps:
            notes.append(
                f"NOTE: --stop-on-collapse: without effect in {max_steps} steps, because a collapse"
                f" is noticed after {earliest} at the earliest. Give a smaller --collapse-window."
            )
        return notes

    def saved(self) -> dict[str, Stateful]:
        """All monitors that have a state, by their names in a checkpoint."""
        collapse = self.collapse_monitor
        return {**self.monitors, **({} if collapse is None else {"collapse_monitor": collapse})}
