"""After a check that leaves CUDA of no use, a fresh worker of scripts.check_gpu runs the next one.

This module is also the catalogue of the checks that its test runs.
"""

import time

import torch

from scripts.check_gpu import supervisor
from scripts.check_gpu.plan import Check, Context, Finding
from scripts.check_gpu.record import Record
from scripts.check_gpu.supervisor import Supervisor
from tests.helpers.forked import ForkingSubprocess


def breaks_cuda(_context: Context) -> Finding:
    """As if a kernel that was started here had met an error: whoever waits for the GPU sees it."""

    def wait() -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    torch.cuda.is_available = torch.cuda.is_initialized = lambda: True
    torch.cuda.synchronize = wait
    return Finding("finished before the kernel")


def good(_context: Context) -> Finding:
    return Finding("fine")


CHECKS = (Check("laws", "breaks CUDA", breaks_cuda), Check("laws", "good", good))


def find(key: str) -> Check:
    return next(check for check in CHECKS if check.key == key)


def test_a_fresh_process_follows_a_broken_gpu(tmp_path, monkeypatch):
    """The check that broke CUDA has failed, though it noticed nothing; the next one passes."""
    monkeypatch.setattr(supervisor, "subprocess", ForkingSubprocess)
    record = Record(tmp_path, {"device": "cpu"})
    paths = {"gta5": None, "cityscapes": None, "work": None}
    watch, deadline = Supervisor(record, print, paths, __name__), time.time() + 200
    assert watch.run(list(CHECKS), deadline, deadline) == []
    broke, fine = map(record.read, CHECKS)
    assert broke["status"] == "FAILED"
    assert "device-side assert" in broke["text"]
    assert fine["status"] == "passed"
