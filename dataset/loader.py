"""DataLoaders for training and evaluation.

Batches are a function of seed and step, so a resumed run reads the batches of an uninterrupted one.
"""

import atexit
import ctypes
import functools
import multiprocessing
import signal
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader

from dataset.listing import ImageList
from dataset.sampling import StepBatches
from dataset.segmentation import SegmentationDataset, collate
from dataset.threads import use_one_thread
from dataset.transforms import WholeImage


class LoaderOptions(NamedTuple):
    """``workers`` processes load batches (0: this one does), into pinned memory or not."""

    workers: int
    pin_memory: bool


def training_loader(
    dataset: SegmentationDataset,
    batch_size: int,
    steps: range,
    options: LoaderOptions,
    shard: tuple[int, int] = (0, 1),
) -> DataLoader:
    """One uint8 batch for each of the ``steps``; batch k is the same wherever ``steps`` begins.

    ``shard``: (rank, world size); each process gets its part of every batch.
    """
    return DataLoader(
        dataset,
        batch_sampler=StepBatches(batch_size, steps, shard),
        **_loader_arguments(options),
    )


def evaluation_loader(
    listing: ImageList, options: LoaderOptions, shard: tuple[int, int] = (0, 1)
) -> DataLoader:
    """Every image whole, once, in order, in batches of 1: image sizes may differ.

    ``shard``: (rank, world size); process ``rank`` gets every ``world size``-th image. The workers
    are kept for the next pass.
    """
    rank, world_size = shard
    return DataLoader(
        SegmentationDataset(listing, WholeImage()),
        batch_size=1,
        sampler=range(len(listing))[rank::world_size],
        persistent_workers=options.workers > 0,
        **_loader_arguments(options),
    )


def _loader_arguments(options: LoaderOptions) -> dict:
    """Arguments of every DataLoader.

    The generator keeps a loader, whenever it starts, from drawing from torch's global generator,
    whose state is part of a run.
    """
    arguments = {
        "num_workers": options.workers,
        "collate_fn": collate,
        "pin_memory": options.pin_memory,
        "generator": torch.Generator(),
    }
    if options.workers:
        _kill_workers_at_exit()
        arguments |= {"worker_init_fn": _start_worker, "prefetch_factor": 4}
    return arguments


@functools.cache
def _kill_workers_at_exit() -> None:
    """Kills the workers that are left when the process exits.

    multiprocessing would end them by SIGTERM, which they ignore, and then wait for ever.
    """

    def kill() -> None:
        # torch's handler reports every killed worker as a failure.
        if hasattr(signal, "SIGCHLD"):  # not on Windows
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for child in multiprocessing.active_children():
            child.kill()

    atexit.register(kill)


def use_one_core() -> None:
    """Sets one thread in all libraries; lets the allocator keep freed memory for the next sample.

    glibc returns large blocks to the system when they are freed, which costs a page fault for every
    4 kB of the next sample: a quarter of its time. On other systems only the threads are set.
    """
    use_one_thread()
    torch.set_num_threads(1)
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
        set_option(option, _KEPT_BYTES)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_KEPT_BYTES = 256 << 20


def _start_worker(worker: int) -> None:
    """Prepares a worker. It ignores signals: the main process saves, and then ends its workers."""
    use_one_core()
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):  # Windows has no SIGHUP and no SIGUSR1
            signal.signal(getattr(signal, name), signal.SIG_IGN)
