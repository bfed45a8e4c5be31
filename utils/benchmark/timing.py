"""Compares the run time of functions: in turns, synchronized, after a warm-up."""

import time
from collections.abc import Callable

import numpy as np
import torch


def measure(
    functions: dict[str, Callable[[], object]],
    device: torch.device,
    repeats: int,
    warm_up: int = 2,
) -> dict[str, list[float]]:
    """Seconds of all repeats of each function.

    The functions take turns, so that other load of the machine affects all of them. On CUDA the
    clock waits for the device.
    """
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    seconds = {name: [] for name in functions}
    for turn in range(-warm_up, repeats):
        for name, function in functions.items():
            wait()
            start = time.perf_counter()
            function()
            wait()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def percentiles_ms(seconds: list[float]) -> dict[str, float]:
    """Minimum, median, and 90th and 99th percentile, in milliseconds."""
    milliseconds = 1000 * np.asarray(seconds)
    return {"min": float(milliseconds.min())} | {
        f"p{q}": float(np.percentile(milliseconds, q)) for q in (50, 90, 99)
    }


def ratio(slow: list[float], fast: list[float]) -> float:
    """Speed-up: median of the quotients of the turns, which is robust to single disturbances."""
    return float(np.median(np.asarray(slow) / np.asarray(fast)))
