"""The processes that torchrun starts to train one network. With one, all operations do nothing.

A step has several forward passes with different outputs, which DistributedDataParallel does not
support. So gradients are summed here, once, after all backward passes, in one flat buffer per
network. Every loss is divided by what the *whole* batch holds: the sum over the processes is the
gradient of one process with the whole batch.
"""

import copy
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

TIMEOUT = timedelta(minutes=10)
"""A process gives up after waiting this long: another one hangs, or a node is gone."""


_SET_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def world_size() -> int:
    """Number of processes that torchrun started, over all nodes; 1 without it.

    Raises ValueError when a scheduler has set WORLD_SIZE without the rest of torchrun's variables:
    each process would take itself for the whole run, or wait for others for ever.
    """
    text = os.environ.get("WORLD_SIZE") or "1"
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(
            f"The environment variable WORLD_SIZE is {text!r}; expected a number of processes."
            " Start several processes with torchrun, which sets it, or remove it: unset WORLD_SIZE"
        )
    absent = [name for name in _SET_BY_TORCHRUN if not os.environ.get(name)]
    if int(text) > 1 and absent:
        raise ValueError(
            f"WORLD_SIZE={text} is set, perhaps by a scheduler, but {', '.join(absent)} are not."
            " Start several processes with torchrun, which sets all of them; for one process"
            " remove it: unset WORLD_SIZE"
        )
    return int(text)


class ProcessGroup:
    """The processes of a run, seen from one of them: ``rank`` of ``world_size``, on ``device``.

    All processes call every method at the same place. The first one writes. Use it as a context,
    which leaves the group at the end. Raises ValueError when there are more processes on this
    machine than GPUs.
    """

    def __init__(self, device: torch.device):
        self.rank, self.world_size = 0, world_size()
        self.device = device
        if self.world_size == 1:
            return
        self.rank = int(os.environ["RANK"])
        if device.type == "cuda":
            self.device = torch.device("cuda", _local_gpu())
            torch.cuda.set_device(self.device)
        # CPU tensors use gloo beside NCCL, too: sharing a number never waits for the GPU.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def alone(self) -> "ProcessGroup":
        """This process by itself: after an error, when others may be gone."""
        single = copy.copy(self)
        single.rank, single.world_size = 0, 1
        return single

    def all_reduce_sum(self, value: Tensor | int) -> Tensor | int:
        """The sum of ``value`` over the processes."""
        if self.world_size == 1:
            return value
        summed = value.clone() if isinstance(value, Tensor) else torch.tensor(value)
        dist.all_reduce(summed)
        return summed if isinstance(value, Tensor) else int(summed)

    def all_gather(self, value: Tensor) -> Tensor:
        """The tensors of all processes, of equal shapes, stacked in the order of their ranks."""
        if self.world_size == 1:
            return value[None]
        values = [torch.empty_like(value) for _ in range(self.world_size)]
        dist.all_gather(values, value)
        return torch.stack(values)

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is set in any process: a signal may reach one of them earlier."""
        return self.all_reduce_sum(int(flag)) > 0

    def gather(self, value: Any) -> list[Any]:
        """The plain ``value`` of every process, in the order of their ranks."""
        if self.world_size == 1:
            return [value]
        values = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def sum_gradients(self, *networks: nn.Module) -> None:
        """Replaces every gradient by its sum over the processes."""
        if self.world_size == 1:
            return
        for network in networks:
            gradients = (parameter.grad for parameter in network.parameters())
            _in_one_message([g for g in gradients if g is not None], dist.all_reduce)

    def broadcast(self, *networks: nn.Module) -> None:
        """Every process takes over the first one's weights and BatchNorm statistics (which --bn
        local lets differ).
        """
        if self.world_size == 1:
            return
        for tensor in (tensor for network in networks for tensor in network.state_dict().values()):
            shared = tensor.contiguous()
            dist.broadcast(shared, 0)
            tensor.copy_(shared)

    def share_buffers(self, buffers: Sequence[Tensor]) -> None:
        """Every process takes over the first one's values, in one message for each dtype.

        With --bn local each process has BatchNorm statistics of its own images. There is one
        network, one teacher: the first one's, which is also what is scored and saved.
        """
        if self.world_size == 1:
            return
        for dtype in {buffer.dtype: None for buffer in buffers}:
            same = [buffer for buffer in buffers if buffer.dtype == dtype]
            _in_one_message(same, lambda flat: dist.broadcast(flat, 0))

    def __enter__(self) -> "ProcessGroup":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        # After an error the others are stuck: leaving the group would wait for them.
        if self.world_size > 1 and kind is None:
            dist.destroy_process_group()


def _in_one_message(tensors: list[Tensor], send: Callable[[Tensor], object]) -> None:
    """Gives ``send`` all values of ``tensors``, of one dtype, as one tensor (n,), which it changes
    in place; puts the values back.
    """
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    send(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view(tensor.shape))


def _local_gpu() -> int:
    local_rank, gpus = os.environ.get("LOCAL_RANK"), torch.cuda.device_count()
    if not local_rank and gpus > 1:
        raise ValueError(
            f"LOCAL_RANK is not set, so that nothing says which of the {gpus} GPUs of this machine"
            " is whose. Start the processes with torchrun, which sets it."
        )
    number = int(local_rank or 0)
    if number >= gpus:
        raise ValueError(
            f"torchrun started more than {gpus} processes on this machine, which has {gpus} GPUs."
            f" Use --nproc-per-node {gpus}."
        )
    return number
