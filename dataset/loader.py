"""Order and batches as a function of seed and position, so that a resumed run reads what an uninterrupted one would have read."""

import atexit
import ctypes
import functools
import multiprocessing
import signal
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from dataset.listing import Listing
from dataset.segmentation import Sample, SegmentationDataset, collate
from dataset.transforms import WholeImage


class ShuffledOrder:
    """position -> index: every epoch a new permutation of ``length`` frames, a function of (seed, stream, epoch)."""

    def __init__(self, length: int, seed: int, stream: int):
        self.length, self.seed, self.stream = length, seed, stream
        self._permutations: dict[int, np.ndarray] = {}

    def __call__(self, position: int) -> int:
        epoch, place = divmod(position, self.length)
        if epoch not in self._permutations:
            self._permutations = {e: p for e, p in self._permutations.items() if e == epoch - 1}  # at most two are alive
            self._permutations[epoch] = np.random.default_rng((self.seed, self.stream, epoch)).permutation(self.length)
        return int(self._permutations[epoch][place])


class CyclicOrder:
    """position -> index: the listing's own order, again and again (the target of the recipe "authors")."""

    def __init__(self, length: int):
        self.length = length

    def __call__(self, position: int) -> int:
        return position % self.length


class StepBatches(Sampler):
    """The positions of each step from ``first_step`` to ``last_step`` (exclusive): step k takes k * batch_size onwards.

    Positions never end, so every batch is full and two loaders of different length never stop at the shorter one. Of several processes
    number ``rank`` of ``world`` takes its part of every batch, which ``world`` must divide.
    """

    def __init__(self, batch_size: int, first_step: int, last_step: int, rank: int = 0, world: int = 1):
        self.batch_size, self.first_step, self.last_step = batch_size, first_step, last_step
        self.part = range(batch_size)[rank * batch_size // world : (rank + 1) * batch_size // world]

    def __len__(self) -> int:
        return max(0, self.last_step - self.first_step)

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first_step, self.last_step):
            yield [step * self.batch_size + place for place in self.part]


def training_loader(
    dataset: SegmentationDataset, batch_size: int, first_step: int, last_step: int, workers: int, pin_memory: bool, rank: int = 0, world: int = 1
) -> DataLoader:
    """Batches for the steps ``first_step`` .. ``last_step - 1``, one each, or the part of process ``rank`` of ``world``. Workers hand over uint8."""
    return DataLoader(dataset, batch_sampler=StepBatches(batch_size, first_step, last_step, rank, world), **_options(workers, pin_memory))


def split(batch: Sample, parts: int) -> Iterator[Sample]:
    """The batch in ``parts`` equal parts, views of it. Raises ValueError when they cannot be equal."""
    if len(batch.image) % parts:
        raise ValueError(f"A batch of {len(batch.image)} images cannot be split into {parts} equal parts. Choose a multiple as --batch-size.")
    return map(Sample._make, zip(*([None] * parts if field is None else field.chunk(parts) for field in batch), strict=True))


def evaluation_loader(listing: Listing, workers: int, pin_memory: bool, rank: int = 0, world: int = 1) -> DataLoader:
    """Every frame whole, once, in order, one at a time: they may differ in size. The workers stay for the next pass.

    Of several processes number ``rank`` of ``world`` takes each ``world``-th frame.
    """
    options = _options(workers, pin_memory) | {"persistent_workers": workers > 0}
    return DataLoader(SegmentationDataset(listing, WholeImage()), batch_size=1, sampler=range(len(listing))[rank::world], **options)


def _options(workers: int, pin_memory: bool) -> dict:
    # A generator of its own: a loader would otherwise draw from torch's global one, which is part of a run's state, whenever it starts.
    options = {"num_workers": workers, "collate_fn": collate, "pin_memory": pin_memory, "generator": torch.Generator()}
    if workers:
        _end_workers_at_exit()
        options |= {"worker_init_fn": _start_worker, "prefetch_factor": 4}
    return options


@functools.cache
def _end_workers_at_exit() -> None:
    """Workers do not heed SIGTERM, by which multiprocessing ends those that are left when the process exits: it would wait for ever."""

    def end() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler takes every killed worker for a failure
        for child in multiprocessing.active_children():
            child.kill()

    atexit.register(end)


def use_one_core() -> None:
    """What suits a process that makes samples: one thread, and memory that is kept from one sample to the next.

    glibc gives large blocks back to the system when they are freed, which costs a page fault for every 4 kB of the next sample: a
    quarter of its time. Elsewhere than on Linux with glibc nothing is changed.
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
    """A signal for the run is the main process's to answer, which saves and then ends its workers."""
    use_one_core()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
