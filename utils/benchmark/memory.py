"""Available memory, what an image needs, and peak memory of a computation, in bytes."""

import ctypes
import gc
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import torch

_CGROUPS = Path("/sys/fs/cgroup")
_CGROUP_FILES = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Folder, limit, memory in use and name of what can be dropped, in cgroups 2 and 1."""


BYTES_PER_PIXEL = 300
"""Peak memory of a forward pass for each pixel, without the weights.

Measured at 1024x2048 and above: 160 (fp32) to 215 (ONNX), and the pictures.
"""
BYTES_PER_PIXEL_OF_MEAN = 200
"""More for each pixel where the probabilities of several views are averaged.

Measured on 0.5 million pixels and 19 classes: 160 (multiscale) to 190 (flip).
"""
BYTES_PER_PIXEL_WITH_TILES = 20
"""Memory for each pixel of an image that is segmented in tiles: decoded, labelled and drawn.

Measured on 36 million pixels: 6 to 15.
"""


def available_memory(device: torch.device) -> int | None:
    """Free memory of ``device`` in bytes, without swap, within cgroup limits; None if unknown."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept  # what torch keeps is free for its tensors
    limits = [_meminfo("MemAvailable"), _cgroup_free()]
    return min((limit for limit in limits if limit is not None), default=None)


def _meminfo(name: str) -> int | None:
    """Value of a line of /proc/meminfo in bytes; None if there is none."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    kib = (int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
    return next((1024 * value for value in kib), None)


def _cgroup_free() -> int | None:
    """Free memory of the cgroup: containers often get less than the machine has.

    Files that were read stay in memory until it is needed (inactive_file): they count as free.
    """
    found = []
    for folder, limit, used, cached in _CGROUP_FILES:
        try:
            most = int((_CGROUPS / folder / limit).read_text(encoding="utf-8"))
            now = int((_CGROUPS / folder / used).read_text(encoding="utf-8"))
            lines = (_CGROUPS / folder / "memory.stat").read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):  # no cgroup, or "max": no limit
            continue
        values = dict(line.split() for line in lines)
        found.append(most - now + int(values.get(cached, 0)))
    return min(found, default=None)


def check_memory(
    path: Path,
    size: tuple[int, int],
    device: torch.device,
    tile: int | None = None,
    scales: Sequence[float] = (),
) -> None:
    """Raises ValueError if segmenting an image of ``size`` (height, width) needs too much memory.

    Otherwise the system would end the process without a message. ``scales``: of the views whose
    probabilities are averaged; the network sees the largest.
    """
    pixels = size[0] * size[1]
    needed, free = pixels * BYTES_PER_PIXEL, available_memory(device)
    if scales:
        needed = int(needed * max(scales) ** 2) + pixels * BYTES_PER_PIXEL_OF_MEAN
    if tile is not None:
        needed = min(needed, tile * tile * BYTES_PER_PIXEL + pixels * BYTES_PER_PIXEL_WITH_TILES)
    if free is not None and needed > free:
        views, remedy = "", "or cut it into parts."
        if scales:
            views = f" in {len(scales)} views, the largest at scale {max(scales):g},"
            remedy = "cut it into parts, or average fewer views."
        elif not tile:
            remedy = "or segment it in tiles: scripts.predict --tile 1024."
        raise ValueError(
            f"{path} is {size[0]}x{size[1]} (height x width); segmenting it{views} takes about"
            f" {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free. Shrink it, {remedy}"
        )


class PeakMemory:
    """Context that measures the largest increase of the memory in use: ``bytes``, afterwards.

    On CUDA: memory allocated by torch. On a CPU: resident memory of this process, sampled every
    millisecond.
    """

    def __init__(self, device: torch.device):
        self.device, self.bytes = device, 0
        self._stop = threading.Event()

    def __enter__(self) -> "PeakMemory":
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        else:
            _trim_heap()
            self._before = _resident()
            self._sampler = threading.Thread(target=self._sample, daemon=True)
            self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.bytes = torch.cuda.max_memory_allocated(self.device) - self._before
        else:
            self._stop.set()
            self._sampler.join()

    def _sample(self) -> None:
        while not self._stop.is_set():
            self.bytes = max(self.bytes, _resident() - self._before)
            time.sleep(0.001)


def _trim_heap() -> None:
    """Returns free heap memory to the system (glibc only); it would hide an increase."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return
    trim(0)


def _resident() -> int:
    """Resident memory of this process in bytes; 0 without /proc."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
    except OSError:
        return 0
