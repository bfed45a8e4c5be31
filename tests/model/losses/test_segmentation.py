"""Segmentation, domain and entropy losses, against their equations."""

import math

import pytest
import torch
import torch.nn.functional as F

from model.bisenet import SegmentationOutput
from model.losses.domain import (
    SOURCE,
    TARGET,
    domain_loss,
    least_squares_domain_loss,
    self_information,
)
from model.losses.segmentation import (
    ClassWeights,
    OnlineHardExamples,
    build_pixel_weights,
    cross_entropy,
    segmentation_loss,
)
from scripts.baselines import gathered_cross_entropy


def example(dtype=torch.float64):
    torch.manual_seed(0)
    label = torch.randint(0, 19, (2, 6, 8))
    label[torch.rand(label.shape) < 0.3] = 255
    logits = [torch.randn(2, 19, 6, 8, dtype=dtype, requires_grad=True) for _ in range(3)]
    return SegmentationOutput(logits[0], tuple(logits[1:])), label


def test_segmentation_loss_sums_the_cross_entropies():
    """Main and auxiliary cross-entropies, each a mean over the valid pixels (Eqs. 1, 2)."""
    output, label = example(torch.float32)
    expected = sum(
        gathered_cross_entropy(logits.double(), label) for logits in (output.logits, *output.aux)
    )
    torch.testing.assert_close(
        segmentation_loss(output, label).double(), expected, rtol=1e-6, atol=0
    )


def test_labels_may_be_bytes():
    """uint8 and int64 labels give the same loss."""
    output, label = example()
    assert torch.equal(segmentation_loss(output, label.byte()), segmentation_loss(output, label))


def test_ignored_pixels_have_no_gradient():
    """All valid pixels have one."""
    output, label = example()
    segmentation_loss(output, label).backward()
    for logits in (output.logits, *output.aux):
        assert (logits.grad.transpose(0, 1)[:, label == 255] == 0).all()
        assert (logits.grad.transpose(0, 1)[:, label != 255] != 0).all()


def test_a_crop_of_ignored_pixels_has_no_loss():
    """Loss and gradients are 0, not NaN."""
    output, label = example()
    loss = segmentation_loss(output, torch.full_like(label, 255))
    loss.backward()
    assert loss.item() == 0
    assert all((logits.grad == 0).all() for logits in (output.logits, *output.aux))


def test_evaluation_output_has_the_main_loss_only():
    """Without auxiliary outputs the loss is the cross-entropy."""
    output, label = example()
    assert torch.equal(
        segmentation_loss(SegmentationOutput(output.logits, ()), label),
        cross_entropy(output.logits, label),
    )


def test_domain_loss_is_equation_3_as_a_mean():
    """Mean of -log D for the source, of -log(1 - D) for the target."""
    score = torch.randn(2, 1, 5, 7)
    probability = score.sigmoid()
    torch.testing.assert_close(domain_loss(score, SOURCE), -probability.log().mean())
    torch.testing.assert_close(domain_loss(score, TARGET), -(1 - probability).log().mean())


def test_losses_are_float32_under_autocast():
    """Half-precision logits are converted first."""
    output, label = example(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = SegmentationOutput(output.logits.bfloat16(), ())
        assert segmentation_loss(half, label).dtype == torch.float32
        assert domain_loss(torch.randn(1, 1, 4, 4).bfloat16(), SOURCE).dtype == torch.float32
        torch.testing.assert_close(
            segmentation_loss(half, label),
            F.cross_entropy(half.logits.float(), label, ignore_index=255),
        )


def test_logits_at_stride_8_give_the_same_loss():
    """Logits smaller than the label are upsampled bilinearly."""
    torch.manual_seed(0)
    logits, label = torch.randn(2, 19, 5, 7, dtype=torch.float64), torch.randint(0, 20, (2, 33, 51))
    label[label == 19] = 255
    full = F.interpolate(logits, size=(33, 51), mode="bilinear", align_corners=False)
    torch.testing.assert_close(
        cross_entropy(logits, label), cross_entropy(full, label), rtol=1e-12, atol=0
    )


def test_weights_do_not_change_the_divisor():
    """Weights multiply the term of each pixel; the divisor is the number of valid pixels."""
    output, label = example()
    weight = torch.rand(label.shape, dtype=torch.float64)
    losses = F.cross_entropy(output.logits, label, ignore_index=255, reduction="none")
    torch.testing.assert_close(
        cross_entropy(output.logits, label, weight=weight),
        (losses * weight).sum() / (label != 255).sum(),
    )
    torch.testing.assert_close(
        segmentation_loss(output, label, weight=torch.ones_like(weight)),
        segmentation_loss(output, label),
    )


def test_ohem_averages_over_hard_pixels():
    """Selected: valid pixels whose true class has a probability below max_probability."""
    output, label = example()
    losses = F.cross_entropy(output.logits, label, ignore_index=255, reduction="none")
    hard = (losses > -math.log(0.05)) & (label != 255)
    weight = OnlineHardExamples(0.05, 0.01)(output.logits.detach(), label)
    assert 0 < hard.sum() < (label != 255).sum()
    assert torch.equal(weight > 0, hard)
    torch.testing.assert_close(
        cross_entropy(output.logits, label, weight=weight), losses[hard].mean(), rtol=1e-6, atol=0
    )


def test_ohem_selects_a_minimum_fraction():
    """min_fraction of the valid pixels are selected, even if all are easy."""
    output, label = example()
    easy = 10.0 * F.one_hot(label.clamp(max=18), 19).permute(0, 3, 1, 2)
    weight = OnlineHardExamples(min_fraction=0.25)(output.logits.detach() + easy, label)
    valid = int((label != 255).sum())
    assert int((weight > 0).sum()) == pytest.approx(0.25 * valid, abs=1)
    assert (OnlineHardExamples()(output.logits.detach(), torch.full_like(label, 255)) == 0).all()


def test_class_weights_favor_rare_classes():
    """Proportional to 1 / sqrt(frequency), mean 1 over pixels, 0 for absent and ignored classes."""
    pixels = torch.tensor([900, 100, 0, 4])
    weights = ClassWeights(pixels, torch.device("cpu"))
    share = pixels / pixels.sum()
    assert float((weights.table[:4] * share).sum()) == pytest.approx(1)
    assert float(weights.table[3] / weights.table[1]) == pytest.approx(5, rel=1e-5)  # sqrt(100 / 4)
    assert weights.table[2] == weights.table[255] == 0
    assert torch.equal(weights(None, torch.tensor([[3, 255]])), weights.table[[3, 255]][None])


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_logit_offset_takes_class_weights_out_of_the_predictions(fraction):
    """The optimum for an image of class shares p is the logits log(p * w ** (1 - fraction))."""
    label = torch.tensor([0] * 12 + [1] * 3 + [3]).view(1, 4, 4)
    pixels = torch.bincount(label.flatten(), minlength=4)
    weights = ClassWeights(pixels, torch.device("cpu"))
    weight = weights.table[:4].double().clamp(min=1e-30)
    optimum = (pixels / pixels.sum()).double().log() + (1 - fraction) * weight.log()
    optimum[2] = -100.0  # a class without pixels
    logits = optimum.view(1, 4, 1, 1).expand(1, 4, 4, 4).clone().requires_grad_()
    offset = weights.logit_offset(fraction).double()
    assert offset[2] == 0
    assert torch.equal(offset == 0, torch.ones(4, dtype=bool)) == (fraction == 0)
    output = SegmentationOutput(logits, ())
    segmentation_loss(output, label, pixel_weights=weights, logit_offset=offset).backward()
    torch.testing.assert_close(
        logits.grad.sum((0, 2, 3)), torch.zeros(4).double(), atol=1e-6, rtol=0
    )


def test_kinds_of_pixel_weights():
    """none, ohem and class; other kinds are refused."""
    assert build_pixel_weights("none", None, torch.device("cpu")) is None
    weights = build_pixel_weights("ohem", None, torch.device("cpu"))
    assert isinstance(weights, OnlineHardExamples)
    weights = build_pixel_weights("class", torch.ones(19), torch.device("cpu"))
    assert isinstance(weights, ClassWeights)
    with pytest.raises(ValueError, match="expected none, ohem or class"):
        build_pixel_weights("hard", None, torch.device("cpu"))


def test_least_squares_is_zero_at_its_goal():
    """(D - z)^2, a mean."""
    score = torch.tensor([1.0, 0.0, 0.5]).view(1, 1, 1, 3)
    assert least_squares_domain_loss(score, SOURCE).item() == pytest.approx((0 + 1 + 0.25) / 3)
    assert least_squares_domain_loss(torch.zeros(1, 1, 2, 2), TARGET) == 0


def test_self_information_sums_to_the_entropy():
    """1 for uniform probabilities, 0 for one-hot; gradients are finite."""
    uniform = torch.full((1, 19, 2, 2), 1 / 19)
    one_hot = F.one_hot(torch.zeros(1, 2, 2, dtype=torch.long), 19).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(self_information(uniform).sum(1), torch.ones(1, 2, 2))
    assert (self_information(one_hot) == 0).all()
    probabilities = one_hot.clone().requires_grad_()
    self_information(probabilities).sum().backward()
    assert probabilities.grad.isfinite().all()
