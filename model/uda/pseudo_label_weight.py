"""Loss weights of pseudo-labels, from the teacher's confidence."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

GRANULARITIES = ("image", "pixel", "class")
THRESHOLD_MOMENTUM = 0.98
"""Momentum of the running means that thresholds of classes are: a mean over some fifty steps."""


class WeightOptions(NamedTuple):
    """How pseudo-labels are weighted.

    A pseudo-label is confident if its probability exceeds ``threshold``. ``granularity``:
    "image": all pixels have the confident fraction of their image as weight (DACS, Tranheden et
    al., WACV 2021). "pixel": 1 for confident pixels, 0 for others (FixMatch, Sohn et al., NeurIPS
    2020). "class": like pixel, but the threshold of a class is at most the running mean confidence
    of that class, so that about half of the pixels of every class, also of uncertain ones,
    contribute. Thresholds by class are those of CBST (Zou et al., ECCV 2018), running means those
    of FreeMatch (Wang et al., ICLR 2023). ``lambda_pseudo`` multiplies all weights.
    """

    threshold: float
    granularity: str = "image"
    lambda_pseudo: float = 1.0


class PseudoLabelWeight(nn.Module):
    """Confidence of pseudo-labels and the loss weights that follow from it.

    ``all_reduce_sum`` sums a tensor over the processes of the run. Raises ValueError for an unknown
    granularity.
    """

    def __init__(
        self,
        options: WeightOptions,
        num_classes: int = 19,
        all_reduce_sum: Callable[[Tensor], Tensor] = lambda sums: sums,
    ):
        super().__init__()
        if options.granularity not in GRANULARITIES:
            raise ValueError(
                f"Unknown weighting {options.granularity!r} of pseudo-labels; expected one of"
                f" {', '.join(GRANULARITIES)}."
            )
        self.options, self._all_reduce_sum = options, all_reduce_sum
        # Per class: the sum of the probabilities, and the number of pixels. Running values, and
        # those of the current step.
        zeros = torch.zeros(2, num_classes, dtype=torch.float64)
        self.register_buffer("sums", zeros)
        self.register_buffer("_step", zeros.clone(), persistent=False)

    def confident(self, label: Tensor, probability: Tensor, ignored: Tensor) -> Tensor:
        """Confident pixels (N, H, W) bool; an ``ignored`` pixel never is.

        ``label`` (N, H, W) int64, ``probability`` (N, H, W) float32, ``ignored`` (N, H, W) bool.
        """
        threshold = self.options.threshold
        if self.options.granularity == "class":
            valid = (~ignored).double()
            values = torch.stack([probability * valid, valid]).flatten(1)  # (2, N * H * W)
            self._step.index_add_(1, label.flatten(), values)
            threshold = self.thresholds()[label]
        return (probability > threshold) & ~ignored

    def thresholds(self) -> Tensor:
        """Thresholds of the classes (C,); a class that was not seen yet has ``threshold``."""
        probabilities, pixels = self.sums
        means = torch.where(pixels > 0, probabilities / pixels, 1.0)
        return means.clamp(max=self.options.threshold)

    def weight(self, confident: Tensor, ignored: Tensor) -> Tensor:
        """Loss weights (N, H, W), or (N, 1, 1) if all pixels of an image have the same."""
        if self.options.granularity == "image":
            return (
                self.options.lambda_pseudo * confident_fraction(confident, ignored)[:, None, None]
            )
        return self.options.lambda_pseudo * confident.float()

    def after_step(self) -> None:
        """Updates the thresholds. Within a step they are the same for all micro-batches."""
        if self.options.granularity == "class":
            self.sums.mul_(THRESHOLD_MOMENTUM).add_(self._all_reduce_sum(self._step))
            self._step.zero_()


def confident_fraction(confident: Tensor, ignored: Tensor) -> Tensor:
    """Fraction of each image's pixels that are confident, of those not ignored: (N,)."""
    return confident.sum((1, 2)) / (~ignored).sum((1, 2)).clamp(min=1)
