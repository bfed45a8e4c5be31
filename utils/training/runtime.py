"""Where a run computes: processes, device, precision."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch

from utils.training.distributed import ProcessGroup
from utils.training.precision import autocast_for, choose_device, choose_precision, scaler_for


class Runtime(NamedTuple):
    """The processes of a run and the precision of its networks.

    ``autocast()`` opens the precision; ``scaler`` scales the losses of fp16.
    """

    processes: ProcessGroup
    precision: str
    autocast: Callable[[], AbstractContextManager]
    scaler: torch.amp.GradScaler

    @property
    def device(self) -> torch.device:
        return self.processes.device

    @property
    def shard(self) -> tuple[int, int]:
        """(rank, world size): this process's part of every batch."""
        return self.processes.rank, self.processes.world_size


def start_runtime(device: str, precision: str, seed: int) -> Runtime:
    """From --device, --precision and --seed; joins the processes that torchrun started, if any.

    Raises what choose_device, choose_precision and ProcessGroup raise.
    """
    processes = ProcessGroup(choose_device(device))
    torch.manual_seed(seed)
    precision = choose_precision(precision, processes.device)
    return Runtime(
        processes,
        precision,
        autocast_for(processes.device, precision),
        scaler_for(processes.device, precision),
    )
