"""Sampled pixels are those of the whole prediction, in every view."""

import pytest
import torch

from model.inference.predictor import Predictor
from model.inference.sampled_pixels import sampled_probabilities
from model.inference.tta import TTAView
from model.preprocessing import INPUT_CONVENTIONS
from tests.helpers.networks import trained_like_network


def predictor_of(views: tuple[TTAView, ...] = ()) -> Predictor:
    network, normalize = trained_like_network(), INPUT_CONVENTIONS["imagenet"]
    return Predictor(network, normalize, torch.device("cpu"), views=views)


def noise(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("size", [(64, 96), (20, 96), (9, 7)], ids=str)
@pytest.mark.parametrize("view", [TTAView(1.0), TTAView(1.0, True), TTAView(1.5)], ids=str)
def test_sampled_pixels_are_those_of_the_whole_map(view, size):
    """At the centers of pixels they equal the upsampled prediction of that view, also in images
    below the smallest size of the network.
    """
    images, (height, width) = noise(2, *size, 3), size
    rows = torch.tensor([0, 5, height // 2, height - 1])
    columns = torch.tensor([width - 1, 0, width // 2, 3])
    points = torch.stack([(columns + 0.5) / width, (rows + 0.5) / height], 1)
    whole = predictor_of((view,)).class_scores(images)
    expected = whole[:, :, rows, columns].permute(0, 2, 1).flatten(0, 1)  # (N * P, C)
    found = sampled_probabilities(predictor_of(), images, points, [view])
    assert found.shape == (1, 8, 19)
    assert torch.allclose(found[0], expected, atol=1e-5)


def test_views_come_in_their_order():
    predictor, images = predictor_of(), noise(1, 64, 64, 3)
    points = torch.rand(5, 2, generator=torch.Generator().manual_seed(1))
    views = (TTAView(1.0), TTAView(1.0, True))
    both = sampled_probabilities(predictor, images, points, views)
    for number, view in enumerate(views):
        alone = sampled_probabilities(predictor, images, points, [view])
        assert torch.equal(alone[0], both[number])
    assert not torch.allclose(*both)
