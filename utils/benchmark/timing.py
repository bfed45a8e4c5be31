"""Timing of computations that compete: side by side, synchronized, after a warm-up."""

import time
from collections.abc import Callable

import numpy as np
import torch


def measure(
    sides: dict[str, Callable[[], object]], device: torch.device, repeats: int, warm_up: int = 2
) -> dict[str, list[float]]:
    """Seconds of every repeat of each side, which take turns, so that what else the machine does
    disturbs them alike.

    On CUDA every clock waits for the device.
    """
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    seconds = {name: [] for name in sides}
    for turn in range(-warm_up, repeats):
        for name, side in sides.items():
            wait()
            start = time.perf_counter()
            side()
            wait()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def percentiles_ms(seconds: list[float]) -> dict[str, float]:
    """Minimum, median and 90th and 99th percentile in milliseconds."""
    milliseconds = 1000 * np.asarray(seconds)
    return {"min": float(milliseconds.min())} | {
        f"p{q}": float(np.percentile(milliseconds, q)) for q in (50, 90, 99)
    }


def ratio(slow: list[float], fast: list[float]) -> float:
    """How many times as fast: the median over the turns of the two sides' quotient, to which a
    passing disturbance does little.
    """
    return float(np.median(np.asarray(slow) / np.asarray(fast)))
