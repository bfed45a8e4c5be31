"""Sampled pixels are those of the whole prediction, in every view."""

import contextlib

import pytest
import torch

from model.inference.sampled_pixels import sampled_probabilities
from model.inference.tta import TTAView, mean_probabilities
from tests.helpers.networks import trained_like_network


@pytest.mark.parametrize("view", [TTAView(1.0), TTAView(1.0, True), TTAView(1.5)], ids=str)
def test_sampled_pixels_are_those_of_the_whole_map(view):
    """At the centers of pixels they equal the upsampled prediction of that view."""
    network = trained_like_network()
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    rows, columns = torch.tensor([0, 5, 31, 63]), torch.tensor([95, 0, 50, 17])
    points = torch.stack([(columns + 0.5) / 96, (rows + 0.5) / 64], 1)
    whole = mean_probabilities(network, images, [view], contextlib.nullcontext)
    expected = whole[:, :, rows, columns].permute(0, 2, 1).flatten(0, 1)  # (N * P, C)
    found = sampled_probabilities(network, images, points, [view], contextlib.nullcontext)
    assert found.shape == (1, 8, 19)
    assert torch.allclose(found[0], expected, atol=1e-5)


def test_views_come_in_their_order():
    network = trained_like_network()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    points = torch.rand(5, 2, generator=torch.Generator().manual_seed(1))
    views = (TTAView(1.0), TTAView(1.0, True))
    both = sampled_probabilities(network, images, points, views, contextlib.nullcontext)
    for number, view in enumerate(views):
        alone = sampled_probabilities(network, images, points, [view], contextlib.nullcontext)
        assert torch.equal(alone[0], both[number])
    assert not torch.allclose(*both)
