"""Laws of the weights of pseudo-labels."""

import pytest
import torch

from model.uda.pseudo_label_weight import PseudoLabelWeight, WeightOptions

LABEL = torch.tensor([[[0, 0], [1, 1]]])
PROBABILITY = torch.tensor([[[0.9, 0.2], [0.7, 0.8]]])
IGNORED = torch.tensor([[[False, False], [False, True]]])


def after(steps, threshold=0.95, **more):
    """A weight per class that has seen the probabilities of each step, all of class 1 of 3."""
    weight = PseudoLabelWeight(WeightOptions(threshold, "class"), 3, **more)
    for values in steps:
        probability = torch.tensor([[values]])
        weight.confident(
            torch.ones_like(probability, dtype=torch.int64),
            probability,
            torch.zeros_like(probability, dtype=torch.bool),
        )
        weight.after_step()
    return weight


def test_image_weight_is_the_confident_fraction():
    weight = PseudoLabelWeight(WeightOptions(0.5))
    confident = weight.confident(LABEL, PROBABILITY, IGNORED)
    assert confident.tolist() == [[[True, False], [True, False]]]
    torch.testing.assert_close(weight.weight(confident, IGNORED), torch.tensor([[[2 / 3]]]))


@pytest.mark.parametrize("granularity", ["pixel", "class"])
def test_only_confident_pixels_have_a_weight(granularity):
    weight = PseudoLabelWeight(WeightOptions(0.5, granularity), 2)
    confident = weight.confident(LABEL, PROBABILITY, IGNORED)
    assert weight.weight(confident, IGNORED).tolist() == [[[1, 0], [1, 0]]]


@pytest.mark.parametrize("granularity", ["image", "pixel", "class"])
def test_lambda_pseudo_multiplies_all_weights(granularity):
    confident = torch.tensor([[[True, False], [True, False]]])
    once, thrice = (
        PseudoLabelWeight(WeightOptions(0.5, granularity, factor)).weight(confident, IGNORED)
        for factor in (1.0, 3.0)
    )
    torch.testing.assert_close(thrice, 3 * once)


class TestPerClass:
    def test_the_threshold_of_a_class_is_the_mean_of_its_pixels(self):
        weight = after([[0.2, 0.6, 0.4]])
        torch.testing.assert_close(
            weight.thresholds(), torch.tensor([0.95, 0.4, 0.95], dtype=torch.float64)
        )
        confident = weight.confident(
            torch.tensor([[[1, 1, 0, 2]]]),
            torch.tensor([[[0.5, 0.3, 0.9, 0.99]]]),
            torch.zeros(1, 1, 4, dtype=torch.bool),
        )
        assert confident.tolist() == [[[True, False, False, True]]]

    def test_recent_steps_count_more(self):
        assert (
            after([[0.2]] * 200 + [[0.8]] * 5).thresholds()[1]
            < 0.5
            < after([[0.2]] * 200 + [[0.8]] * 200).thresholds()[1]
        )

    def test_never_above_the_threshold_of_all(self):
        assert after([[0.99, 0.99]]).thresholds()[1] == 0.95

    def test_ignored_pixels_are_not_counted(self):
        weight = PseudoLabelWeight(WeightOptions(0.95, "class"), 2)
        weight.confident(LABEL, PROBABILITY, IGNORED)
        weight.after_step()
        torch.testing.assert_close(
            weight.thresholds(), torch.tensor([0.55, 0.7], dtype=torch.float64)
        )

    def test_the_parts_of_a_batch_are_as_the_whole(self):
        """Thresholds move when the step is done, not between its parts."""
        torch.manual_seed(0)
        label, probability = torch.randint(0, 3, (4, 8, 8)), torch.rand(4, 8, 8)
        nothing = torch.zeros(label.shape, dtype=torch.bool)
        whole, parts = (
            PseudoLabelWeight(WeightOptions(0.95, "class"), 3),
            PseudoLabelWeight(WeightOptions(0.95, "class"), 3),
        )
        for _ in range(3):
            confident = whole.confident(label, probability, nothing)
            in_parts = [
                parts.confident(*each)
                for each in zip(label.split(2), probability.split(2), nothing.split(2), strict=True)
            ]
            assert torch.equal(confident, torch.cat(in_parts))
            whole.after_step()
            parts.after_step()
            torch.testing.assert_close(whole.sums, parts.sums)

    def test_the_processes_of_a_run_have_the_same_thresholds(self):
        other = torch.zeros(2, 3, dtype=torch.float64)
        other[:, 1] = torch.tensor([0.9, 1.0])
        weight = after([[0.3]], all_reduce_sum=lambda sums: sums + other)
        assert weight.thresholds()[1].item() == pytest.approx(0.6)

    def test_its_memory_is_saved_and_loaded(self):
        one, other = after([[0.2], [0.7]]), PseudoLabelWeight(WeightOptions(0.95, "class"), 3)
        other.load_state_dict(one.state_dict())
        assert torch.equal(one.thresholds(), other.thresholds())


def test_an_unknown_granularity():
    with pytest.raises(ValueError, match="expected one of image, pixel, class"):
        PseudoLabelWeight(WeightOptions(0.9, "batch"))
