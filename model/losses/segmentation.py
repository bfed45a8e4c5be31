"""Supervised segmentation losses (Eqs. 1, 2, 4): cross-entropy, OHEM, class weights. Computed in
float32 under any autocast.
"""

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
    """Eq. 2: softmax cross-entropy, the mean over the valid pixels; 0 (with zero gradient) where no
    pixel is valid, never NaN.

    Args: logits (N, C, h, w), interpolated bilinearly where they are smaller than the label; label
    (N, H, W) of any integer type, trainIds or ``ignore_index``; ``valid_pixels``: of the whole
    batch where this is a part of it, so that the parts' losses add up to the mean over the whole,
    by default those of ``label``; ``weight`` (N, H, W) multiplies each pixel's term and does not
    change what the sum is divided by. Returns a scalar.
    """
    logits = at_least_float32(logits)
    full_size = logits.shape[-2:] == label.shape[-2:]
    total = (cross_entropy_sum if full_size else upsampled_cross_entropy_sum)(
        logits, label, ignore_index, weight
    )
    return total / (
        (label != ignore_index).sum().clamp(min=1) if valid_pixels is None else max(1, valid_pixels)
    )


PixelWeights = Callable[[Tensor, Tensor], Tensor]
"""(logits (N, C, h, w), label (N, H, W)) -> the weight of every pixel (N, H, W), without gradient:
``ohem_weights`` or ``ClassWeights``.
"""


def segmentation_loss(
    output,
    label: Tensor,
    ignore_index: int = 255,
    valid_pixels: float | None = None,
    weight: Tensor | None = None,
    weighting: PixelWeights | None = None,
) -> Tensor:
    """Eq. 1 with alpha = 1 and k = 3: cross-entropy on the main output and on each auxiliary one.
    Also Eq. 4.

    Args: ``output`` with ``.logits`` (N, C, H, W) and ``.aux``, a tuple of such, or all of them at
    stride 8 as the network's ``low_resolution`` gives them: the same value, cheaper; label (N, H,
    W); ``valid_pixels`` and ``weight`` as for ``cross_entropy``; ``weighting`` makes further
    weights, of each output's own. Returns a scalar.
    """

    def one(logits: Tensor) -> Tensor:
        weights = [
            each
            for each in (weight, weighting and weighting(logits.detach(), label))
            if each is not None
        ]
        return cross_entropy(
            logits, label, ignore_index, valid_pixels, math.prod(weights) if weights else None
        )

    return sum(one(logits) for logits in (output.logits, *output.aux))


def ohem_weights(
    logits: Tensor,
    label: Tensor,
    ignore_index: int = 255,
    probability: float = 0.7,
    least: float = 1 / 16,
) -> Tensor:
    """Online hard example mining (OHEM; Shrivastava et al., CVPR 2016, in the pixelwise form of the
    original BiSeNet).

    Pixels whose true class has a probability below ``probability`` count, but no fewer than the
    share ``least`` of the valid ones, the hardest. Returns weights (N, H, W): 0, or the factor that
    makes the sum over these pixels, divided by all valid ones, their mean.
    """
    full = F.interpolate(
        at_least_float32(logits), size=label.shape[-2:], mode="bilinear", align_corners=False
    )
    losses = F.cross_entropy(
        full, label.long(), ignore_index=ignore_index, reduction="none"
    )  # (N, H, W)
    valid = label != ignore_index
    ranked = losses.masked_fill(~valid, -1).flatten().sort(descending=True).values
    last = (
        (valid.sum() * least).long().clamp(max=ranked.numel() - 1)
    )  # on the device: nothing waits for it
    hard = valid & (losses >= ranked[last].clamp(max=-math.log(probability)))
    return hard * (valid.sum() / hard.sum().clamp(min=1))


class ClassWeights:
    """Pixels weigh by their class: rarer classes more, by 1 / sqrt(share), so that the mean weight
    of a pixel is 1.

    ``pixels``: (C,) how many pixels of each class the training labels hold. A class that never
    occurs weighs 0.
    """

    def __init__(self, pixels: Tensor, device: torch.device):
        share = pixels.double() / pixels.sum()
        raw = torch.where(share > 0, share.clamp(min=1e-12).rsqrt(), 0.0)
        table = torch.zeros(256)
        table[: len(pixels)] = (raw / (raw * share).sum()).float()
        self.table = table.to(device)

    def __call__(self, _logits: Tensor, label: Tensor) -> Tensor:
        return self.table[label.long()]


def build_pixel_weights(
    kind: str, pixels: Tensor | None, device: torch.device
) -> PixelWeights | None:
    """ "equal": None; "hard": ``ohem_weights``; "class": ``ClassWeights`` of ``pixels`` (C,), those
    of the training labels.
    """
    return {
        "equal": lambda: None,
        "hard": lambda: ohem_weights,
        "class": lambda: ClassWeights(pixels, device),
    }[kind]()
