"""Processes that read images: every start method, one thread each, none left behind."""

import ctypes
import functools
import multiprocessing
import os
import signal
import sys
import time

import numpy as np
import pytest

from dataset.gta5 import gta5
from dataset.loader import LoaderOptions, evaluation_loader, training_loader, use_one_core
from dataset.prepared.workers import in_processes
from dataset.sampling import ShuffledIndex
from dataset.segmentation import SegmentationDataset
from dataset.style.fda import FourierTransfer
from dataset.style.lab import LabTransfer
from dataset.threads import blas_library, set_blas_threads
from dataset.transforms import RandomScaleCropFlip
from scripts.benchmark.loader import loader_ms
from scripts.benchmark.samples import BaselineProcess, build_dataset
from tests.helpers import forked


@pytest.fixture
def forkserver():
    """The default of Python 3.14 on Linux; like Windows and macOS it sends workers their data."""
    before = multiprocessing.get_start_method(allow_none=True)
    forked._context()  # whose server has imported torch already
    multiprocessing.set_start_method("forkserver", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


def test_workers_that_a_server_starts_do_the_work(forkserver):
    """Their parent of the system is the server, not the process that waits for them."""
    assert sorted(in_processes(range(9), functools.partial(pow, 2), 2)) == [2**k for k in range(9)]


def slow(_: int) -> int:
    time.sleep(0.6)
    return os.getpid()


def test_workers_of_a_server_stay_while_their_parent_is(forkserver):
    """Longer than they used to look for it."""
    assert len(set(in_processes(range(4), slow, 2))) == 2


ORPHANS = """
import multiprocessing, os, sys, time
sys.path.insert(0, ".")
from dataset.prepared.workers import in_processes

def work(number):
    print("worker", os.getpid(), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1], force=True)
    list(in_processes(range(2), work, 2))
"""


@pytest.mark.parametrize(
    "method", ["fork", *(pytest.param(m, marks=pytest.mark.slow) for m in ("forkserver", "spawn"))]
)
def test_workers_end_with_their_parent(method, tmp_path):
    """Also when it is killed."""
    (tmp_path / "parent.py").write_text(ORPHANS)
    with forked.ForkedScript(str(tmp_path / "parent.py"), method) as parent:
        deadline = time.monotonic() + 60
        while parent.stdout.count("\n") < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        workers = [int(line.split()[1]) for line in parent.stdout.splitlines()]
        assert len(workers) == 2, parent.stderr
        os.kill(parent.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while any(map(is_alive, workers)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(map(is_alive, workers))


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be collected does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_loaders_give_the_same_batches(gta5_root, forkserver):
    """With color transfers, in this process and in a worker that a server started."""
    listing = gta5(gta5_root)

    def batches(workers: int) -> list:
        data = SegmentationDataset(
            listing,
            RandomScaleCropFlip((0.5, 1.0), (32, 48)),
            ShuffledIndex(len(listing), 0, 0),
            [LabTransfer(listing, listing), FourierTransfer(listing)],
        )
        return list(training_loader(data, 2, range(2), LoaderOptions(workers, pin_memory=False)))

    for one, other in zip(batches(0), batches(1), strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.label, other.label)
    assert len(list(evaluation_loader(listing, LoaderOptions(1, pin_memory=False)))) == 6


def test_the_benchmark_of_data_sends_its_data(gta5_root, forkserver):
    """Python 3.14 pickles what a worker needs."""
    listings = dict.fromkeys(("gta5_raw", "cityscapes_raw"), gta5(gta5_root))
    data = build_dataset(listings, "gta5_lab_raw", (1.0,), (32, 48))
    assert len(list(training_loader(data, 2, range(1), LoaderOptions(1, pin_memory=False)))) == 1
    assert loader_ms(data, 2, 4) > 0  # the server's children are not counted
    assert multiprocessing.get_start_method() == "forkserver"
    frame = listings["gta5_raw"][0]
    with BaselineProcess() as milliseconds:
        assert milliseconds(frame.image, frame.label, 1.0, (32, 48), None) > 0


@pytest.mark.skipif(sys.platform == "win32", reason="not found through numpy's library")
def test_a_worker_has_one_thread_for_matrix_products():
    """Many workers with a thread a core each slow each other down."""
    names = ("scipy_openblas_get_num_threads64_", "openblas_get_num_threads")
    found = [getattr(blas_library(), name, None) for name in names]
    count = next((function for function in found if function is not None), None)
    if count is None:
        pytest.skip("this numpy has another BLAS")
    assert isinstance(blas_library(), ctypes.CDLL)
    before = count()
    try:
        assert set_blas_threads(2)
        assert count() == 2
        use_one_core()
        assert count() == 1
    finally:
        set_blas_threads(before)
