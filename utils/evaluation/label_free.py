"""Measures of a network's predictions that need no labels, and how rankings by them are judged.

Each measure is a function of class probabilities (P, C) at P sampled pixels, or of class maps.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MOST_NEIGHBORS = 4096
"""Pixels that soft_neighborhood_density compares with each other: a matrix of 64 MB."""


class Measure(NamedTuple):
    """``higher_is_better``: which end of the values comes first in a ranking."""

    title: str
    source: str
    higher_is_better: bool = True


MEASURES = {
    "entropy": Measure("mean entropy", "Morerio et al., ICLR 2018", higher_is_better=False),
    "infomax": Measure("InfoMax", "Shi & Sha, ICML 2012; Musgrave et al., 2022"),
    "snd": Measure("soft neighborhood density", "Saito et al., ICCV 2021"),
    "views": Measure("agreement of views", "consistency over scales and mirror images"),
    "teacher": Measure("agreement of teacher and student", "logged by the run itself"),
    "seeds": Measure("agreement with the other runs", "their mean probabilities"),
    "shares": Measure("distance of class shares", "half the L1 distance", higher_is_better=False),
    "last": Measure("step", "take the last one"),
}
"""All measures, in the order of tables."""


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy in nats along the last axis: (..., C) -> (...)."""
    return -(probabilities * probabilities.clamp(min=1e-12).log()).sum(-1)


def mean_entropy(probabilities: Tensor) -> float:
    """Mean entropy of the pixels in nats, (P, C); a confident network has a low one.

    As a criterion for choosing a network: Morerio et al., ICLR 2018.
    """
    return entropy(probabilities).mean().item()


def infomax(probabilities: Tensor) -> float:
    """Entropy of the mean probabilities minus the mean entropy, in nats: (P, C).

    High for confident predictions of many classes; a network that predicts one class everywhere has
    0. Shi & Sha, ICML 2012; as a criterion: Musgrave et al., 2022.
    """
    return (entropy(probabilities.mean(0)) - entropy(probabilities).mean()).item()


def soft_neighborhood_density(probabilities: Tensor, temperature: float = 0.05) -> float:
    """Mean entropy of each pixel's similarities to the others: (P, C), P of at least 2.

    High where pixels have many equally close neighbors, that is dense clusters. Saito et al.,
    ICCV 2021, Eqs. 1-3, with their temperature; at most MOST_NEIGHBORS pixels, evenly spaced.
    """
    if len(probabilities) > MOST_NEIGHBORS:
        chosen = torch.linspace(0, len(probabilities) - 1, MOST_NEIGHBORS).long()
        probabilities = probabilities[chosen]
    normalized = F.normalize(probabilities.float(), dim=1)
    similarity = normalized @ normalized.t() / temperature
    similarity.fill_diagonal_(-torch.inf)
    return entropy(similarity.softmax(1)).mean().item()


def agreement(classes: Tensor, others: Tensor) -> float:
    """Fraction of the pixels (P,) with equal classes."""
    return (classes == others).float().mean().item()


def view_agreement(classes: Tensor) -> float:
    """Mean agreement of the first view with each of the others: (V, P) class maps."""
    return (classes[1:] == classes[:1]).float().mean().item()


def class_shares(classes: Tensor, num_classes: int) -> Tensor:
    """Fraction of the pixels (P,) that are predicted as each class: (C,)."""
    return torch.bincount(classes.flatten(), minlength=num_classes) / classes.numel()


def share_distance(shares: Tensor, reference: Tensor) -> float:
    """Total variation of two distributions over the classes (C,): 0 (equal) to 1."""
    return 0.5 * (shares - reference).abs().sum().item()


def consensus_agreement(probabilities: Sequence[Tensor], runs: Sequence[str]) -> list[float | None]:
    """Agreement of each candidate with the mean probabilities of the other runs.

    ``probabilities``: (P, C) of each candidate; ``runs``: the run of each. Every run counts once,
    however many candidates it has. None where there is no other run.
    """
    means = {
        run: torch.stack(
            [p.float() for p, r in zip(probabilities, runs, strict=True) if r == run]
        ).mean(0)
        for run in dict.fromkeys(runs)
    }
    if len(means) < 2:
        return [None] * len(runs)
    total = sum(means.values())
    consensus = {run: (total - mean).argmax(1) for run, mean in means.items()}
    return [
        agreement(own.argmax(1), consensus[run])
        for own, run in zip(probabilities, runs, strict=True)
    ]


def ranks(values: Sequence[float | None], higher_is_better: bool = True) -> list[float | None]:
    """Rank of each value, 1 for the best; equal values share their mean rank; None stays None."""
    signed = [None if v is None else (-v if higher_is_better else v) for v in values]
    known = np.array([v for v in signed if v is not None])
    return [
        None if v is None else float((known < v).sum() + ((known == v).sum() + 1) / 2)
        for v in signed
    ]


def rank_correlation(values: Sequence[float], others: Sequence[float]) -> float:
    """Spearman's rank correlation; NaN for fewer than 3 values, or where all are equal."""
    if len(values) < 3:
        return float("nan")
    first, second = (np.array(ranks(v)) for v in (values, others))
    if first.std() == 0 or second.std() == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


class Choice(NamedTuple):
    """How well a measure chooses, in scores (mIoU, fractions of 1), means over groups.

    ``correlation``: Spearman's, with the score. ``chosen``: score of the candidate that comes first
    by the measure. ``last``, ``mean`` and ``best``: of the candidate with the most steps, of all,
    and of the one with the highest score.
    """

    correlation: float
    chosen: float
    last: float
    mean: float
    best: float
    candidates: int
    groups: int


def judge(
    values: Sequence[float | None],
    scores: Sequence[float],
    steps: Sequence[int],
    groups: Sequence[str],
    higher_is_better: bool,
) -> Choice | None:
    """How well a measure ranks the candidates of each group (a run, or all); None without values.

    Candidates without a value, and groups of fewer than 2, are left out.
    """
    sign = 1 if higher_is_better else -1
    found = []
    for group in dict.fromkeys(groups):
        rows = [
            (sign * value, score, step)
            for value, score, step, own in zip(values, scores, steps, groups, strict=True)
            if own == group and value is not None
        ]
        if len(rows) < 2:
            continue
        value, score, step = (np.array(column) for column in zip(*rows, strict=True))
        found.append(
            (
                rank_correlation(value, score),
                score[value.argmax()],
                score[step.argmax()],
                score.mean(),
                score.max(),
                len(rows),
            )
        )
    if not found:
        return None
    correlation, chosen, last, mean, best, counts = zip(*found, strict=True)
    defined = [c for c in correlation if c == c]
    mean_correlation = float(np.mean(defined)) if defined else float("nan")
    means = (float(np.mean(column)) for column in (chosen, last, mean, best))
    return Choice(mean_correlation, *means, sum(counts), len(found))
