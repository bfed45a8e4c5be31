"""Averages of weights: one network from several snapshots of a run."""

from collections.abc import Sequence

import torch
from torch import Tensor


def average_states(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of state dicts, summed in float64; counters of batches are those of the last.

    Running statistics of BatchNorm are averaged, too; stochastic weight averaging (Izmailov et al.,
    UAI 2018) measures them anew. Raises ValueError where the tensors differ in names or shapes.
    """
    shapes = [{name: value.shape for name, value in state.items()} for state in states]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError("State dicts of different networks cannot be averaged.")
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(last.dtype)
        if last.is_floating_point()
        else last.clone()
        for name, last in states[-1].items()
    }
