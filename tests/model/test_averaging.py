"""Averages of weights and ensembles of predictions."""

import pytest
import torch

from model.averaging import average_states
from model.inference.ensemble import Ensemble
from model.inference.predictor import Predictor
from model.preprocessing import INPUT_CONVENTIONS
from model.uda.class_balanced_threshold import confidence_bins, confidence_of
from tests.helpers.networks import trained_like_network


def test_floats_are_averaged_and_counters_kept():
    states = [
        {"w": torch.tensor([value, 1.0]), "steps": torch.tensor(number)}
        for number, value in enumerate((0.0, 3.0, 6.0))
    ]
    mean = average_states(states)
    assert torch.equal(mean["w"], torch.tensor([3.0, 1.0]))
    assert mean["steps"] == 2
    assert mean["w"].dtype == torch.float32


def test_states_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="different networks"):
        average_states([{"w": torch.zeros(2)}, {"w": torch.zeros(3)}])


def test_an_ensemble_predicts_the_mean_and_counts_agreement():
    members = [
        Predictor(trained_like_network(seed), INPUT_CONVENTIONS["imagenet"], torch.device("cpu"))
        for seed in (0, 1)
    ]
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1, 64, 64, 3), generator=generator).to(torch.uint8)
    own = [member.class_scores(images).softmax(1) for member in members]
    probabilities, agreement = Ensemble(members)(images)
    assert torch.allclose(probabilities, sum(own) / 2)
    classes = probabilities.argmax(1)
    expected = sum((p.argmax(1) == classes).float() for p in own) / 2
    assert torch.equal(agreement, expected)
    assert set(agreement.unique().tolist()) <= {0, 0.5, 1}
    assert len(agreement.unique()) > 1
    alone, nothing = Ensemble(members[:1])(images)
    assert torch.equal(alone, own[0])
    assert nothing is None


def test_disagreement_lowers_the_confidence_and_not_the_class():
    """Half of the agreement halves the probability; the bins tell it to 1 %."""
    probabilities = torch.tensor([0.8, 0.2]).view(1, 2, 1, 1)
    classes, bins = confidence_bins(probabilities)
    for agreement in (1.0, 0.75, 0.5):
        found, confidence = confidence_bins(probabilities, torch.full((1, 1, 1), agreement))
        assert torch.equal(found, classes)
        assert confidence_of(confidence).item() == pytest.approx(0.8 * agreement, rel=0.01)
    assert torch.equal(confidence_bins(probabilities, torch.ones(1, 1, 1))[1], bins)
