"""Processor time of a loader's worker per sample."""

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager

from dataset.loader import LoaderOptions, training_loader
from dataset.segmentation import SegmentationDataset


@contextmanager
def _forked_workers() -> Iterator[None]:
    """Workers are children of this process, which counts their time, and import nothing again.

    Raises OSError where the system cannot fork.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        raise OSError(
            "scripts.benchmark data measures forked processes, which this system does not have. Run"
            " it on Linux, or on Windows in WSL."
        )
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("fork", force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(before, force=True)


def loader_ms(dataset: SegmentationDataset, batch_size: int = 4, batches: int = 40) -> float:
    """CPU milliseconds of a worker per sample, with making batches and handing them over."""

    def cpu_seconds_of_children() -> float:
        return os.times().children_user + os.times().children_system

    before = cpu_seconds_of_children()
    options = LoaderOptions(workers=1, pin_memory=False)
    with _forked_workers():
        loader = iter(training_loader(dataset, batch_size, range(batches), options))
        for _ in loader:
            pass
        del loader  # waits for the worker, whose time counts only then
    return 1000 * (cpu_seconds_of_children() - before) / (batches * batch_size)
