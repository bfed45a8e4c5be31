"""Comparing what runs have saved."""

from pathlib import Path

import torch

from utils.training.checkpoint import read_checkpoint


def same_state(one: Path, other: Path) -> bool:
    """Whether two checkpoints hold the same state, bit for bit: every part, the step, the best
    score and the random state.
    """
    one, other = read_checkpoint(one), read_checkpoint(other)
    return all(_equal(one[key], other[key]) for key in ("parts", "step", "best", "random"))


def _equal(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return a == b
