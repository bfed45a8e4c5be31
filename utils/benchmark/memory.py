"""Memory: how much there is, and how much a piece of work takes. All in bytes."""

import ctypes
import gc
import os
import threading
import time
from pathlib import Path

import torch


def available_memory(device: torch.device) -> int | None:
    """What ``device`` can still give without swapping, control group limits included; None where
    the system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = [
        value for value in (_meminfo("MemAvailable"), _control_group_rest()) if value is not None
    ]
    return min(free) if free else None


def _meminfo(name: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next(
        (int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None
    )


def _control_group_rest() -> int | None:
    """Containers are often given less than the machine has."""
    folder = Path("/sys/fs/cgroup")
    try:
        return int((folder / "memory.max").read_text()) - int(
            (folder / "memory.current").read_text()
        )
    except (OSError, ValueError):  # no control group, or "max": no limit
        return None


class PeakMemory:
    """Measures, as a context, by how much the memory in use rises at the most: ``.bytes``,
    afterwards.

    On CUDA it is what torch allocates; on a CPU the resident memory of this process, looked at
    every millisecond.
    """

    def __init__(self, device: torch.device):
        self.device, self.bytes = device, 0
        self._done = threading.Event()

    def __enter__(self) -> "PeakMemory":
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        else:
            _give_back_free_memory()
            self._before = _resident()
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.bytes = torch.cuda.max_memory_allocated(self.device) - self._before
        else:
            self._done.set()
            self._watcher.join()

    def _watch(self) -> None:
        while not self._done.is_set():
            self.bytes = max(self.bytes, _resident() - self._before)
            time.sleep(0.001)


def _give_back_free_memory() -> None:
    """What the C library keeps for itself would hide a rise. Only glibc has this."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _resident() -> int:
    """The resident memory of this process; 0 where /proc does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
