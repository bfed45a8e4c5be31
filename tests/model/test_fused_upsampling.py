"""Fused upsampling equals resizing first, in values and gradients, for any size of strips."""

import pytest
import torch
import torch.nn.functional as F

from model import fused_upsampling
from model.fused_upsampling import (
    upsampled_classes,
    upsampled_cross_entropy_sum,
    upsampled_softmax,
)

SIZES = [((4, 8), (32, 64)), ((5, 7), (33, 51)), ((1, 1), (8, 8)), ((13, 26), (97, 201))]


def resized(logits, size):
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


@pytest.fixture(params=[1, 4000, 1 << 20], ids=lambda size: f"strips of {size} bytes")
def strip_bytes(request, monkeypatch):
    monkeypatch.setattr(fused_upsampling, "STRIP_BYTES", request.param)


@pytest.mark.usefixtures("strip_bytes")
@pytest.mark.parametrize(("small", "size"), SIZES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
class TestEqualsThePlainOperations:
    def logits(self, small, memory_format):
        torch.manual_seed(0)
        logits = torch.randn(2, 19, *small, dtype=torch.float64)
        return logits.contiguous(memory_format=memory_format).requires_grad_()

    def test_cross_entropy_and_its_gradient(self, small, size, memory_format):
        """The sum over valid pixels."""
        logits = self.logits(small, memory_format)
        label = torch.randint(0, 19, (2, *size), dtype=torch.uint8)
        label[torch.rand(label.shape) < 0.4] = 255
        expected = F.cross_entropy(
            resized(logits, size), label.long(), ignore_index=255, reduction="sum"
        )
        found = upsampled_cross_entropy_sum(logits, label, 255)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        gradients = [torch.autograd.grad(3 * loss, logits)[0] for loss in (found, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)

    def test_weighted_cross_entropy_and_its_gradient(self, small, size, memory_format):
        """Pixel weights multiply the terms."""
        logits = self.logits(small, memory_format)
        label = torch.randint(0, 19, (2, *size), dtype=torch.uint8)
        label[torch.rand(label.shape) < 0.4] = 255
        weight = torch.rand(label.shape, dtype=torch.float64)
        full = resized(logits, size)
        losses = F.cross_entropy(full, label.long(), ignore_index=255, reduction="none")
        expected = (losses * weight).sum()
        found = upsampled_cross_entropy_sum(logits, label, 255, weight)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        gradients = [torch.autograd.grad(3 * loss, logits)[0] for loss in (found, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)

    def test_softmax_and_its_gradient(self, small, size, memory_format):
        """The result is channels_last."""
        logits = self.logits(small, memory_format)
        expected, found = resized(logits, size).softmax(1), upsampled_softmax(logits, size)
        assert found.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        upstream = torch.randn_like(expected)
        gradients = [
            torch.autograd.grad(probabilities, logits, upstream)[0]
            for probabilities in (found, expected)
        ]
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_ignored_pixels_only():
    """Loss and gradient are 0."""
    logits = torch.randn(1, 19, 4, 4, requires_grad=True)
    loss = upsampled_cross_entropy_sum(logits, torch.full((1, 32, 32), 255), 255)
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()


def test_backward_leaves_its_inputs_unchanged():
    """Probabilities and upstream gradient are not modified in place."""
    logits = torch.randn(2, 19, 4, 4, requires_grad=True)
    probabilities = upsampled_softmax(logits, (32, 32))
    before = probabilities.clone()
    upstream = torch.randn_like(before)
    kept = upstream.clone()
    probabilities.backward(upstream)
    assert torch.equal(probabilities, before)
    assert torch.equal(upstream, kept)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("small", "size"),
    [*SIZES, ((1, 3), (8, 24)), ((8, 5), (64, 40)), ((25, 12), (200, 96)), ((17, 9), (136, 70))],
)
def test_classes_are_those_of_the_plain_operations(small, size, memory_format):
    """Bit for bit: the scores that are compared are the same in every strip."""
    torch.manual_seed(0)
    logits = torch.randn(2, 19, *small)
    logits[:, 3] = logits[:, 7]  # ties
    logits = logits.contiguous(memory_format=memory_format)
    expected = resized(logits, size).max(1).indices
    found = upsampled_classes(logits, size)
    assert found.dtype == torch.uint8
    assert len(found.unique()) > 2 or small == (1, 1)
    assert torch.equal(found.long(), expected)
