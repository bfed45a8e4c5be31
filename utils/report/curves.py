"""Training curves: scalars from the TensorBoard events of run folders."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


class Curve(NamedTuple):
    """One scalar of one run: ``values`` at ``steps``, of one length."""

    steps: list[int]
    values: list[float]


class SeedRange(NamedTuple):
    """One scalar over runs with different seeds, (n,) arrays at the steps that all runs share.

    ``mean``, ``low`` and ``high`` are the mean, the minimum and the maximum over the runs.
    """

    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    runs: int


def read_curves(run: Path) -> dict[str, Curve]:
    """Reads all scalars of a run folder: {name: curve}; {} where it holds no events."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 1}).Reload()
    scalars = {name: events.Scalars(name) for name in events.Tags()["scalars"]}
    return {
        name: Curve([point.step for point in points], [point.value for point in points])
        for name, points in scalars.items()
    }


def seed_range(curves: Sequence[Curve], max_points: int = 160) -> SeedRange | None:
    """The mean and the range over runs with different seeds; None where they share no step.

    Values that are not finite are left out. Of a step that was logged twice the last value counts.
    Curves longer than ``max_points`` are averaged over intervals of equal length.
    """
    finite = [
        {step: value for step, value in zip(*curve, strict=True) if math.isfinite(value)}
        for curve in curves
    ]
    steps = sorted(set.intersection(*map(set, finite))) if finite else []
    if not steps:
        return None
    values = np.array([[run[step] for step in steps] for run in finite])  # (runs, steps)
    intervals = np.array_split(np.arange(len(steps)), min(max_points, len(steps)))
    values = np.stack([values[:, part].mean(1) for part in intervals], 1)  # (runs, n)
    centers = np.array([np.mean([steps[index] for index in part]) for part in intervals])
    return SeedRange(centers, values.mean(0), values.min(0), values.max(0), len(finite))
