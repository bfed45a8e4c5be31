"""Segmentation losses (Eqs. 1, 2, 4) in float32: cross-entropy, OHEM, class weights."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from model.fused_upsampling import at_least_float32, cross_entropy_sum, upsampled_cross_entropy_sum


def cross_entropy(
    logits: Tensor,
    label: Tensor,
    ignore_index: int = 255,
    valid_pixels: float | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Softmax cross-entropy, averaged over the valid pixels (Eq. 2).

    Returns a scalar; 0 with zero gradient if no pixel is valid, never NaN.

    Args:
        logits: (N, C, h, w); upsampled bilinearly if smaller than the label.
        label: (N, H, W) of any integer type, trainIds or ``ignore_index``.
        valid_pixels: the divisor; default: the valid pixels of ``label``. For a micro-batch it is
            the number in the whole batch, so that the losses add up to the mean over the batch.
        weight: (N, H, W), multiplies the term of each pixel; it does not change the divisor.
    """
    logits = at_least_float32(logits)
    full_size = logits.shape[-2:] == label.shape[-2:]
    loss_sum = cross_entropy_sum if full_size else upsampled_cross_entropy_sum
    total = loss_sum(logits, label, ignore_index, weight)
    if valid_pixels is None:
        return total / (label != ignore_index).sum().clamp(min=1)
    return total / max(1, valid_pixels)


PixelWeights = Callable[[Tensor, Tensor], Tensor]
"""Function (logits (N, C, h, w), label (N, H, W)) -> pixel weights (N, H, W)."""


def segmentation_loss(
    output,
    label: Tensor,
    ignore_index: int = 255,
    valid_pixels: float | None = None,
    weight: Tensor | None = None,
    pixel_weights: PixelWeights | None = None,
) -> Tensor:
    """Sum of the cross-entropies of the main and the auxiliary outputs (Eq. 1, alpha = 1; Eq. 4).

    Returns a scalar.

    Args:
        output: a SegmentationOutput, at full size or from ``low_resolution`` (same value, cheaper).
        label: (N, H, W), trainIds or ``ignore_index``.
        valid_pixels, weight: as for ``cross_entropy``.
        pixel_weights: computes weights (N, H, W) from the logits of each output and the label; they
            are multiplied with ``weight``.
    """

    def output_loss(logits: Tensor) -> Tensor:
        factors = [] if weight is None else [weight]
        if pixel_weights is not None:
            factors.append(pixel_weights(logits.detach(), label))
        product = math.prod(factors) if factors else None
        return cross_entropy(logits, label, ignore_index, valid_pixels, product)

    return sum(output_loss(logits) for logits in (output.logits, *output.aux))


def ohem_weights(
    logits: Tensor,
    label: Tensor,
    ignore_index: int = 255,
    max_probability: float = 0.7,
    min_fraction: float = 1 / 16,
) -> Tensor:
    """Online hard example mining (OHEM; Shrivastava et al., CVPR 2016; pixelwise as in BiSeNet).

    Selects the pixels whose true class has a probability below ``max_probability``, and at least
    the fraction ``min_fraction`` of the valid pixels, the hardest. Returns weights (N, H, W): 0, or
    valid / selected pixels, so that ``cross_entropy`` becomes the mean over the selected pixels.
    """
    size = label.shape[-2:]
    full = F.interpolate(at_least_float32(logits), size, mode="bilinear", align_corners=False)
    losses = F.cross_entropy(full, label.long(), ignore_index=ignore_index, reduction="none")
    valid = label != ignore_index
    ranked = losses.masked_fill(~valid, -1).flatten().sort(descending=True).values
    # On the device: indexing with a host number would make a GPU wait.
    last = (valid.sum() * min_fraction).long().clamp(max=ranked.numel() - 1)
    hard = valid & (losses >= ranked[last].clamp(max=-math.log(max_probability)))
    return hard * (valid.sum() / hard.sum().clamp(min=1))


class ClassWeights:
    """Class weights proportional to 1 / sqrt(class frequency), with a mean over all pixels of 1.

    ``class_pixels``: (C,) number of pixels of each class in the training labels. The weight of a
    class without pixels is 0.
    """

    def __init__(self, class_pixels: Tensor, device: torch.device):
        frequency = class_pixels.double() / class_pixels.sum()
        weights = torch.where(frequency > 0, frequency.clamp(min=1e-12).rsqrt(), 0.0)
        table = torch.zeros(256)  # by label value; 0 for the ignored
        table[: len(class_pixels)] = (weights / (weights * frequency).sum()).float()
        self.table = table.to(device)

    def __call__(self, _logits: Tensor, label: Tensor) -> Tensor:
        return self.table[label.long()]


def build_pixel_weights(
    kind: str, class_pixels: Tensor | None, device: torch.device
) -> PixelWeights | None:
    """Pixel weights called ``kind``: "none" -> None, "ohem", or "class".

    ``class_pixels``: (C,) number of pixels of each class in the training labels, for "class".
    Raises ValueError for another kind.
    """
    if kind == "none":
        return None
    if kind == "ohem":
        return ohem_weights
    if kind == "class":
        return ClassWeights(class_pixels, device)
    raise ValueError(f"Unknown pixel weights {kind!r}; expected none, ohem or class.")
