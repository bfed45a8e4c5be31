"""Class-balanced thresholds against sorting all pixels, which is what they stand for."""

import math

import pytest
import torch

from model.uda.class_balanced_threshold import (
    BINS,
    ConfidenceHistogram,
    confidence_bins,
    confidence_of,
)


@pytest.fixture
def probabilities():
    """(4, 5, 40, 50): class 4 is never predicted, class 3 seldom and never surely."""
    rng = torch.Generator().manual_seed(0)
    logits = (
        3 * torch.randn(4, 5, 40, 50, generator=rng)
        + torch.tensor([2.0, 1.0, 0.0, -4.0, -60.0])[:, None, None]
    )
    return logits.softmax(1)


def histogram_of(probabilities):
    histogram = ConfidenceHistogram(probabilities.shape[1])
    for image in probabilities:
        histogram.add(*confidence_bins(image[None]))
    return histogram


def test_bins_say_what_the_confidence_is(probabilities):
    prediction, bins = confidence_bins(probabilities)
    assert torch.equal(prediction.long(), probabilities.argmax(1))
    confidence = probabilities.max(1).values.double()
    assert (confidence_of(bins) <= confidence + 1e-6).all()
    assert (confidence_of(bins + 1) >= confidence - 1e-6).all()
    order = confidence.flatten().argsort()
    assert (bins.flatten()[order].diff() >= -1).all()  # float32 sums may err by a step


def test_very_sure_pixels_are_told_apart():
    logits = torch.zeros(1, 19, 1, 6)
    logits[0, 7, 0] = torch.tensor(
        [12.0, 14.0, 17.0, 20.0, 25.0, 300.0]
    )  # from 16 on, p is 1 in float32
    _, bins = confidence_bins(logits.softmax(1))
    assert (bins[0, 0].diff() > 0).all()
    assert bins.max() == BINS - 1


def test_ends_of_the_scale():
    assert confidence_of(torch.tensor([0, BINS])).tolist() == [0, 1]
    _, bins = confidence_bins(torch.full((1, 200, 1, 1), 1 / 200))
    assert bins.item() == 0


def test_the_histogram_does_not_depend_on_the_order_of_images(probabilities):
    one, other = histogram_of(probabilities), ConfidenceHistogram(5)
    other.add(*confidence_bins(probabilities.flip(0)))
    assert torch.equal(one.counts, other.counts)
    assert one.counts.sum() == 4 * 40 * 50


@pytest.mark.parametrize("keep", [0.05, 0.2, 0.5, 0.9, 1.0])
def test_of_every_class_the_most_confident_are_kept(probabilities, keep):
    histogram = histogram_of(probabilities)
    thresholds = histogram.thresholds(keep)
    prediction, bins = confidence_bins(probabilities)
    for c in range(4):
        own = bins[prediction == c].long().sort(descending=True).values
        wanted = math.ceil(keep * len(own) - 1e-9)
        kept = int((own >= thresholds[c]).sum())
        assert kept == histogram.kept(thresholds)[c]
        assert own[wanted - 1] == thresholds[c], (
            "the last pixel that must be kept is in the bin of the threshold"
        )
        assert wanted <= kept
        assert kept - wanted < (own == thresholds[c]).sum()
    assert thresholds[4] == BINS
    assert histogram.kept(thresholds)[4] == 0


def test_a_rare_class_of_low_confidence_keeps_its_fraction(
    probabilities,
):
    """One threshold for all classes would remove all of its pixels."""
    histogram = histogram_of(probabilities)
    thresholds = histogram.thresholds(0.5)
    share = histogram.kept(thresholds) / histogram.counts.sum(1)
    assert (share[:4] - 0.5).abs().max() < 0.05
    same_for_all = histogram.kept(torch.full((5,), int(thresholds[0])))
    assert same_for_all[3] < 0.2 * histogram.counts[3].sum()


@pytest.mark.parametrize("lowest", [0.3, 0.5, 0.9, 0.99])
def test_nothing_below_the_least_confidence_is_kept(probabilities, lowest):
    thresholds = histogram_of(probabilities).thresholds(1.0, lowest)
    prediction, bins = confidence_bins(probabilities)
    kept = bins.long() >= thresholds[prediction.long()]
    confidence = probabilities.max(1).values
    assert confidence[kept].min() > lowest - 1e-6
    assert confidence[~kept].max() < lowest + (1 - lowest) * 0.01  # a bin's width


def test_a_fraction_that_is_no_fraction():
    for keep, lowest in ((0, 0), (1.1, 0), (0.5, 1), (0.5, -0.1)):
        with pytest.raises(ValueError, match="Expected 0 < keep <= 1"):
            ConfidenceHistogram(3).thresholds(keep, lowest)
