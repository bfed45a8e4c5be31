"""Images of any size have predictions: small ones get a border, which is cut off."""

import numpy as np
import pytest
import torch

from model.inference.engines import _compiled
from model.inference.ensemble import Ensemble
from model.inference.merge import MergedPredictor
from model.inference.predictor import Predictor
from model.inference.tiling import with_border
from model.inference.tta import TTA_PRESETS
from model.preprocessing import INPUT_CONVENTIONS
from tests.helpers.networks import trained_like_network

SIZES = [(1, 1), (3, 50), (50, 3), (31, 31)]


def predictor_of(views=()) -> Predictor:
    network, normalize = trained_like_network(), INPUT_CONVENTIONS["imagenet"]
    return Predictor(network, normalize, torch.device("cpu"), views=views)


def small_image(size: tuple[int, int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (1, *size, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("views", [(), TTA_PRESETS["flip"]], ids=["plain", "flip"])
def test_small_images_are_those_with_repeated_edges(size, views):
    """Class maps and scores equal those of the image with its last pixels repeated, cut off."""
    image, (height, width) = small_image(size), size
    edges = ((0, 0), (0, max(0, 32 - height)), (0, max(0, 32 - width)), (0, 0))
    whole = torch.from_numpy(np.pad(image.numpy(), edges, mode="edge"))
    assert torch.equal(with_border(image, 32), whole)
    assert np.array_equal(with_border(image.numpy(), 32), whole)
    predictor = predictor_of(views)
    assert predictor(image).shape == (1, *size)
    assert torch.equal(predictor(image), predictor(whole)[:, :height, :width])
    scores = predictor.class_scores(image)
    assert torch.equal(scores, predictor.class_scores(whole)[..., :height, :width])


def test_ensembles_and_merged_classes_take_small_images():
    image, predictor = small_image((5, 40)), predictor_of()
    merged = MergedPredictor(predictor, torch.eye(19))
    assert torch.equal(merged(image), predictor(image))
    assert Ensemble([predictor, predictor])(image).agreement.shape == (1, 5, 40)


def test_a_compiled_network_takes_small_images(monkeypatch):
    """Its border is cut off, too."""
    monkeypatch.setattr(torch, "compile", lambda network, dynamic: network)
    image, predictor = small_image((5, 40)), predictor_of()
    assert torch.equal(_compiled(predictor)(image), predictor(image))
