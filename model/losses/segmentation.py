"""Segmentation losses (Eqs. 1, 2, 4) in float32: cross-entropy, OHEM, class weights."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from model.fused_upsampling import (
    at_least_float32,
    cross_entropy_sum,
    resize,
    upsampled_cross_entropy_sum,
)


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
    logit_offset: Tensor | None = None,
) -> Tensor:
    """Sum of the cross-entropies of the main and the auxiliary outputs (Eq. 1, alpha = 1; Eq. 4).

    Returns a scalar.

    Args:
        output: a SegmentationOutput, at full size or from ``low_resolution`` (same value, cheaper).
        label: (N, H, W), trainIds or ``ignore_index``.
        valid_pixels, weight: as for ``cross_entropy``.
        pixel_weights: computes weights (N, H, W) from the logits of each output and the label; they
            are multiplied with ``weight``.
        logit_offset: (C,), added to the logits in the loss alone (``ClassWeights.logit_offset``).
    """

    def output_loss(logits: Tensor) -> Tensor:
        if logit_offset is not None:
            logits = at_least_float32(logits) + logit_offset[:, None, None]
        factors = [] if weight is None else [weight]
        if pixel_weights is not None:
            factors.append(pixel_weights(logits.detach(), label))
        product = math.prod(factors) if factors else None
        return cross_entropy(logits, label, ignore_index, valid_pixels, product)

    return sum(output_loss(logits) for logits in (output.logits, *output.aux))


class OnlineHardExamples:
    """Online hard example mining (OHEM; Shrivastava et al., CVPR 2016; pixelwise as in BiSeNet).

    Selects the pixels whose true class has a probability below ``max_probability``, and at least
    the fraction ``min_fraction`` of the valid pixels, the hardest. Weights (N, H, W) are 0, or
    valid / selected pixels, so that ``cross_entropy`` becomes the mean over the selected pixels.

    The selection is over the whole batch: of all processes (``all_gather`` stacks their tensors,
    (P, ...)) and of all micro-batches. Several micro-batches are computed twice. The first time,
    from ``begin_counting`` to ``end_counting``, losses are noted and the weights are 0; the second
    time the weights are those of the selection. ``begin_micro_batch`` comes before every
    micro-batch.
    """

    def __init__(
        self,
        max_probability: float = 0.7,
        min_fraction: float = 1 / 16,
        ignore_index: int = 255,
        all_gather: Callable[[Tensor], Tensor] = lambda value: value[None],
    ):
        self.max_loss, self.min_fraction = -math.log(max_probability), min_fraction
        self.ignore_index, self.all_gather = ignore_index, all_gather
        self._losses: list[list[Tensor]] | None = None  # by call, then by micro-batch
        self._selected: list[tuple[Tensor, Tensor]] = []  # by call
        self._call = 0  # number of calls in this micro-batch: one for each output of each pass

    def begin_counting(self) -> None:
        """Notes losses from now on."""
        self._losses, self._selected = [], []

    @property
    def is_counting(self) -> bool:
        """Whether losses are only noted, and weights are 0."""
        return self._losses is not None

    def begin_micro_batch(self) -> None:
        """A micro-batch begins."""
        self._call = 0

    def end_counting(self) -> None:
        """Selects from the noted losses; the weights of the same micro-batches follow."""
        self._selected = [self._select(torch.cat(losses)) for losses in self._losses]
        self._losses = None

    def forget_counts(self) -> None:
        """The batch is over."""
        self._losses, self._selected = None, []

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        size = label.shape[-2:]
        full = resize(at_least_float32(logits), size)
        losses = F.cross_entropy(
            full, label.long(), ignore_index=self.ignore_index, reduction="none"
        ).masked_fill(label == self.ignore_index, -1)
        call, self._call = self._call, self._call + 1
        if self.is_counting:
            if call == len(self._losses):
                self._losses.append([])
            self._losses[call].append(losses.flatten())
            return torch.zeros_like(losses)
        threshold, weight = (
            self._selected[call] if self._selected else self._select(losses.flatten())
        )
        return ((losses >= 0) & (losses >= threshold)) * weight

    def _select(self, losses: Tensor) -> tuple[Tensor, Tensor]:
        """Lowest selected loss and the weight, of this process's losses (n,), -1 where ignored."""
        valid = self.all_gather((losses >= 0).sum())  # (P,)
        hardest, count = losses.sort(descending=True).values, len(losses) * len(valid)
        if len(valid) > 1:  # the hardest of each process are enough
            hardest = self.all_gather(hardest[: int(count * self.min_fraction) + 1].contiguous())
            hardest = hardest.flatten().sort(descending=True).values
        valid = valid.sum()
        last = (valid * self.min_fraction).long().clamp(max=hardest.numel() - 1)
        # Indexing with a number of the device would make the host wait for it; gather does not.
        threshold = hardest.gather(0, last[None])[0].clamp(max=self.max_loss)
        selected = self.all_gather(((losses >= 0) & (losses >= threshold)).sum()).sum()
        return threshold, valid / selected.clamp(min=1)


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
        self.num_classes = len(class_pixels)

    def logit_offset(self, fraction: float) -> Tensor:
        """What the loss adds to the logits (C,) so that fewer pixels are predicted as rare classes.

        A network trained with class weights w estimates p(c | x) w_c, up to a factor. If the loss
        adds ``fraction`` * log w to its logits (as Menon et al., ICLR 2021, add log frequencies),
        it estimates p(c | x) w_c^(1 - fraction): the weights shape the gradients as before, but the
        predictions less. 0 for a class of weight 0.
        """
        weights = self.table[: self.num_classes]
        return fraction * torch.where(weights > 0, weights, 1.0).log()

    def __call__(self, _logits: Tensor, label: Tensor) -> Tensor:
        return self.table[label.long()]


def build_pixel_weights(
    kind: str,
    class_pixels: Tensor | None,
    device: torch.device,
    all_gather: Callable[[Tensor], Tensor] = lambda value: value[None],
) -> PixelWeights | None:
    """Pixel weights called ``kind``: "none" -> None, "ohem", or "class".

    ``class_pixels``: (C,) number of pixels of each class in the training labels, for "class".
    ``all_gather``: see OnlineHardExamples. Raises ValueError for another kind.
    """
    if kind == "none":
        return None
    if kind == "ohem":
        return OnlineHardExamples(all_gather=all_gather)
    if kind == "class":
        return ClassWeights(class_pixels, device)
    raise ValueError(f"Unknown pixel weights {kind!r}; expected none, ohem or class.")
