"""The losses of the paper: Eqs. 1-5, means over pixels. Scores are raised to float32 before softmax and BCE, whatever autocast does."""

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.upsampling import upsampled_cross_entropy_sum

SOURCE, TARGET = 1.0, 0.0
"""z of Eq. 3: what the discriminator should answer for each domain."""


def at_least_float32(scores: Tensor) -> Tensor:
    """Half-precision scores as float32; wider ones as they are."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def cross_entropy(logits: Tensor, label: Tensor, ignore_index: int = 255, valid_pixels: int | None = None) -> Tensor:
    """Eq. 2: softmax cross-entropy, the mean over the valid pixels; 0 (with zero gradient) where no pixel is valid, never NaN.

    Args: logits (N, C, h, w), interpolated bilinearly where they are smaller than the label; label (N, H, W) of any integer type,
    trainIds or ``ignore_index``; ``valid_pixels``: of the whole batch where this is a part of it, so that the parts' losses add up to
    the mean over the whole, by default those of ``label``. Returns a scalar.
    """
    logits = at_least_float32(logits)
    if logits.shape[-2:] == label.shape[-2:]:
        total = F.cross_entropy(logits, label.long(), ignore_index=ignore_index, reduction="sum")
    else:
        total = upsampled_cross_entropy_sum(logits, label, ignore_index)
    return total / ((label != ignore_index).sum().clamp(min=1) if valid_pixels is None else max(1, valid_pixels))


def segmentation_loss(output, label: Tensor, ignore_index: int = 255, valid_pixels: int | None = None) -> Tensor:
    """Eq. 1 with alpha = 1 and k = 3: cross-entropy on the main output and on each auxiliary one. Also Eq. 4.

    Args: ``output`` with ``.logits`` (N, C, H, W) and ``.aux``, a tuple of such, or all of them at stride 8 as the network's
    ``low_resolution`` gives them: the same value, cheaper; label (N, H, W); ``valid_pixels`` as for ``cross_entropy``. Returns a scalar.
    """
    return sum(cross_entropy(logits, label, ignore_index, valid_pixels) for logits in (output.logits, *output.aux))


def domain_loss(score: Tensor, domain: float) -> Tensor:
    """Eqs. 3 and 5 for one domain: binary cross-entropy of the discriminator's logits (N, 1, H, W) with z = ``domain``, the mean."""
    score = at_least_float32(score)
    return F.binary_cross_entropy_with_logits(score, torch.full_like(score, domain))
