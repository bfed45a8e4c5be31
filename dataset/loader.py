"""Order and batches as a function of seed and position, so that a resumed run reads what an
uninterrupted one would have read.
"""

import atexit
import ctypes
import functools
import multiprocessing
import signal
from collections.abc import Iterator

import cv2
import torch
from torch.utils.data import DataLoader

from dataset.listing import ImageList
from dataset.sampling import StepBatches
from dataset.segmentation import Sample, SegmentationDataset, collate
from dataset.transforms import WholeImage


def training_loader(
    dataset: SegmentationDataset,
    batch_size: int,
    first_step: int,
    last_step: int,
    workers: int,
    pin_memory: bool,
    rank: int = 0,
    world: int = 1,
) -> DataLoader:
    """Batches for the steps ``first_step`` .. ``last_step - 1``, one each, or the part of process
    ``rank`` of ``world``. Workers hand over uint8.
    """
    return DataLoader(
        dataset,
        batch_sampler=StepBatches(batch_size, first_step, last_step, rank, world),
        **_options(workers, pin_memory),
    )


def split(batch: Sample, parts: int) -> Iterator[Sample]:
    """The batch in ``parts`` equal parts, views of it. Raises ValueError when they cannot be
    equal.
    """
    if len(batch.image) % parts:
        raise ValueError(
            f"A batch of {len(batch.image)} images cannot be split into {parts} equal parts. Choose"
            " a multiple as --batch-size."
        )
    return map(
        Sample._make,
        zip(
            *([None] * parts if field is None else field.chunk(parts) for field in batch),
            strict=True,
        ),
    )


def evaluation_loader(
    listing: ImageList, workers: int, pin_memory: bool, rank: int = 0, world: int = 1
) -> DataLoader:
    """Every frame whole, once, in order, one at a time: they may differ in size. The workers stay
    for the next pass.

    Of several processes number ``rank`` of ``world`` takes each ``world``-th frame.
    """
    options = _options(workers, pin_memory) | {"persistent_workers": workers > 0}
    return DataLoader(
        SegmentationDataset(listing, WholeImage()),
        batch_size=1,
        sampler=range(len(listing))[rank::world],
        **options,
    )


def _options(workers: int, pin_memory: bool) -> dict:
    # A generator of its own: a loader would otherwise draw from torch's global one, which is part
    # of a run's state, whenever it starts.
    options = {
        "num_workers": workers,
        "collate_fn": collate,
        "pin_memory": pin_memory,
        "generator": torch.Generator(),
    }
    if workers:
        _end_workers_at_exit()
        options |= {"worker_init_fn": _start_worker, "prefetch_factor": 4}
    return options


@functools.cache
def _end_workers_at_exit() -> None:
    """Workers do not heed SIGTERM, by which multiprocessing ends those that are left when the
    process exits: it would wait for ever.
    """

    def end() -> None:
        signal.signal(
            signal.SIGCHLD, signal.SIG_DFL
        )  # torch's handler takes every killed worker for a failure
        for child in multiprocessing.active_children():
            child.kill()

    atexit.register(end)


def use_one_core() -> None:
    """What suits a process that makes samples: one thread, and memory that is kept from one sample
    to the next.

    glibc gives large blocks back to the system when they are freed, which costs a page fault for
    every 4 kB of the next sample: a quarter of its time. Elsewhere than on Linux with glibc nothing
    is changed.
    """
    cv2.setNumThreads(0)
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
    """A signal for the run is the main process's to answer, which saves and then ends its
    workers.
    """
    use_one_core()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
