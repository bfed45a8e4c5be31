import torch
import torch.nn.functional as F

from model.bisenet import SegmentationOutput
from scripts.baselines import gathered_cross_entropy
from utils.losses import SOURCE, TARGET, cross_entropy, domain_loss, segmentation_loss


def example(dtype=torch.float64):
    torch.manual_seed(0)
    label = torch.randint(0, 19, (2, 6, 8))
    label[torch.rand(label.shape) < 0.3] = 255
    logits = [torch.randn(2, 19, 6, 8, dtype=dtype, requires_grad=True) for _ in range(3)]
    return SegmentationOutput(logits[0], tuple(logits[1:])), label


def test_sum_of_main_and_auxiliary_cross_entropies_over_valid_pixels():
    output, label = example(torch.float32)
    expected = sum(gathered_cross_entropy(logits.double(), label) for logits in (output.logits, *output.aux))
    torch.testing.assert_close(segmentation_loss(output, label).double(), expected, rtol=1e-6, atol=0)


def test_labels_may_be_bytes():
    output, label = example()
    assert torch.equal(segmentation_loss(output, label.byte()), segmentation_loss(output, label))


def test_ignored_pixels_have_no_gradient():
    output, label = example()
    segmentation_loss(output, label).backward()
    for logits in (output.logits, *output.aux):
        assert (logits.grad.transpose(0, 1)[:, label == 255] == 0).all()
        assert (logits.grad.transpose(0, 1)[:, label != 255] != 0).all()


def test_a_crop_of_ignored_pixels_gives_zero_and_zero_gradients():
    output, label = example()
    loss = segmentation_loss(output, torch.full_like(label, 255))
    loss.backward()
    assert loss.item() == 0
    assert all((logits.grad == 0).all() for logits in (output.logits, *output.aux))


def test_evaluation_output_has_the_main_loss_only():
    output, label = example()
    assert torch.equal(segmentation_loss(SegmentationOutput(output.logits, ()), label), cross_entropy(output.logits, label))


def test_domain_loss_is_equation_3_as_a_mean():
    score = torch.randn(2, 1, 5, 7)
    probability = score.sigmoid()
    torch.testing.assert_close(domain_loss(score, SOURCE), -probability.log().mean())
    torch.testing.assert_close(domain_loss(score, TARGET), -(1 - probability).log().mean())


def test_losses_are_float32_under_autocast():
    output, label = example(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = SegmentationOutput(output.logits.bfloat16(), ())
        assert segmentation_loss(half, label).dtype == torch.float32
        assert domain_loss(torch.randn(1, 1, 4, 4).bfloat16(), SOURCE).dtype == torch.float32
        torch.testing.assert_close(segmentation_loss(half, label), F.cross_entropy(half.logits.float(), label, ignore_index=255))


def test_scores_at_stride_8_give_the_same_loss_as_their_upsampling():
    torch.manual_seed(0)
    scores, label = torch.randn(2, 19, 5, 7, dtype=torch.float64), torch.randint(0, 20, (2, 33, 51))
    label[label == 19] = 255
    full = F.interpolate(scores, size=(33, 51), mode="bilinear", align_corners=False)
    torch.testing.assert_close(cross_entropy(scores, label), cross_entropy(full, label), rtol=1e-12, atol=0)
