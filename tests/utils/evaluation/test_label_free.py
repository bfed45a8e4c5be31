"""Measures without labels against their definitions, and how rankings are judged."""

import math

import pytest
import torch

from utils.evaluation.label_free import (
    MOST_NEIGHBORS,
    agreement,
    class_shares,
    consensus_agreement,
    infomax,
    judge,
    mean_entropy,
    rank_correlation,
    ranks,
    share_distance,
    soft_neighborhood_density,
    view_agreement,
)

UNIFORM = torch.full((6, 4), 0.25)
CERTAIN = torch.eye(4)[[0, 1, 2, 3, 0, 1]]
ONE_CLASS = torch.eye(4)[[2] * 6]


def random_probabilities(pixels: int, seed: int = 0) -> torch.Tensor:
    return (3 * torch.randn(pixels, 4, generator=torch.Generator().manual_seed(seed))).softmax(1)


def test_entropy_is_zero_for_certain_pixels_and_log_c_at_most():
    assert mean_entropy(CERTAIN) == 0
    assert mean_entropy(UNIFORM) == pytest.approx(math.log(4))
    assert 0 < mean_entropy(random_probabilities(50)) < math.log(4)


def test_infomax_wants_certain_pixels_of_many_classes():
    """One class everywhere is as bad as no certainty at all: 0."""
    assert infomax(UNIFORM) == pytest.approx(0, abs=1e-6)
    assert infomax(ONE_CLASS) == pytest.approx(0, abs=1e-6)
    assert infomax(torch.eye(4)) == pytest.approx(math.log(4))


def test_neighborhood_density_is_that_of_its_definition():
    """A softmax over the cosines to all other pixels, at temperature 0.05; then its entropy."""
    p, expected = random_probabilities(7), 0.0
    for i in range(7):
        cosines = [
            float(p[i] @ p[j] / p[i].norm() / p[j].norm()) / 0.05 for j in range(7) if j != i
        ]
        weights = [math.exp(c - max(cosines)) for c in cosines]
        weights = [w / sum(weights) for w in weights]
        expected -= sum(w * math.log(w) for w in weights if w > 0) / 7
    assert soft_neighborhood_density(p) == pytest.approx(expected, rel=1e-4)


def test_neighborhood_density_of_clusters():
    """Equal pixels have all others as neighbors; lone pixels choose among few."""
    dense = torch.eye(4)[[0] * 50 + [1] * 50]
    assert soft_neighborhood_density(dense) == pytest.approx(math.log(49), rel=1e-3)
    assert soft_neighborhood_density(dense) > soft_neighborhood_density(random_probabilities(100))
    many = random_probabilities(MOST_NEIGHBORS + 500)
    assert soft_neighborhood_density(many) == soft_neighborhood_density(
        many[torch.linspace(0, len(many) - 1, MOST_NEIGHBORS).long()]
    )


def test_agreement_of_views_is_with_the_first():
    views = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 0], [0, 0, 0, 0]])
    assert view_agreement(views) == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert agreement(views[0], views[1]) == 0.75


def test_shares_and_their_distance():
    shares = class_shares(torch.tensor([0, 0, 1, 3]), 5)
    assert shares.tolist() == [0.5, 0.25, 0, 0.25, 0]
    assert share_distance(shares, shares) == 0
    assert share_distance(shares, torch.tensor([0.0, 0, 0, 0, 1])) == 1
    assert share_distance(shares, torch.tensor([0.25, 0.25, 0.25, 0.25, 0])) == 0.25


def test_the_consensus_is_of_the_other_runs():
    """A run counts once, however many candidates it has, and not for itself."""
    a, b, c = (torch.eye(3)[[number] * 4] for number in (0, 1, 1))
    found = consensus_agreement([a, a, a, b, c, c], ["x", "x", "x", "y", "z", "w"])
    assert found == [0, 0, 0, 1, 1, 1]
    assert consensus_agreement([a, b], ["x", "x"]) == [None, None]


def test_ranks_count_from_the_best_and_share_ties():
    assert ranks([0.1, 0.3, None, 0.3, 0.2]) == [4, 1.5, None, 1.5, 3]
    assert ranks([0.1, 0.3, 0.2], higher_is_better=False) == [1, 3, 2]


def test_rank_correlation_is_spearmans():
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 400]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    # 1 - 6 * sum of squared differences of ranks / (n * (n^2 - 1))
    assert rank_correlation([1, 2, 3, 4, 5], [2, 1, 3, 5, 4]) == pytest.approx(1 - 6 * 4 / 120)
    assert math.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))
    assert math.isnan(rank_correlation([1, 2], [1, 2]))


def test_a_measure_is_judged_within_groups():
    """The chosen, the last, the mean and the best of each run, averaged over runs."""
    groups, steps = ["a"] * 3 + ["b"] * 3 + ["c"], [1, 2, 3, 1, 2, 3, 1]
    scores = [0.1, 0.5, 0.3, 0.2, 0.4, 0.6, 0.9]
    choice = judge(scores, scores, steps, groups, higher_is_better=True)
    assert choice.correlation == pytest.approx(1)
    assert (choice.chosen, choice.best) == pytest.approx((0.55, 0.55))
    assert (choice.last, choice.mean) == pytest.approx((0.45, 0.35))
    assert (choice.candidates, choice.groups) == (6, 2)
    worst = judge(scores, scores, steps, groups, higher_is_better=False)
    assert worst.correlation == pytest.approx(-1)
    assert worst.chosen == pytest.approx(0.15)
    some = judge([0.9, None, 0.8, None, None, None, 1], scores, steps, groups, True)
    assert (some.candidates, some.groups) == (2, 1)
    assert some.chosen == pytest.approx(0.1)
    assert judge([None] * 7, scores, steps, groups, True) is None
