"""How runs went on: scalars out of the TensorBoard events of their folders."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


class Curve(NamedTuple):
    """One scalar of one run."""

    steps: list[int]
    values: list[float]


class SeedRange(NamedTuple):
    """One scalar of several runs, (n,) arrays: the mean over the runs, the lowest and the highest
    of them, at the steps all have.
    """

    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    runs: int


def read_curves(run: Path) -> dict[str, Curve]:
    """Every scalar of a run folder; {} where it holds no events."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 1}).Reload()
    scalars = {name: events.Scalars(name) for name in events.Tags()["scalars"]}
    return {
        name: Curve([point.step for point in points], [point.value for point in points])
        for name, points in scalars.items()
    }


def seed_range(curves: Sequence[Curve], most: int = 160) -> SeedRange | None:
    """The curves as one band, of at most ``most`` points: longer ones are averaged in stretches.
    None where they share no step.
    """
    # Of a step logged twice the last counts; what is not finite cannot be drawn.
    tables = [
        {
            step: value
            for step, value in zip(curve.steps, curve.values, strict=True)
            if math.isfinite(value)
        }
        for curve in curves
    ]
    steps = sorted(set.intersection(*map(set, tables))) if tables else []
    if not steps:
        return None
    values = np.array([[table[step] for step in steps] for table in tables])  # (runs, n)
    stretches = np.array_split(np.arange(len(steps)), min(most, len(steps)))
    values = np.stack([values[:, stretch].mean(1) for stretch in stretches], 1)
    places = np.array([np.mean([steps[place] for place in stretch]) for stretch in stretches])
    return SeedRange(places, values.mean(0), values.min(0), values.max(0), len(tables))
