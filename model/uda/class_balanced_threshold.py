"""Class-balanced pseudo-labels: the most confident predictions of every class (CBST).

Zou et al., ECCV 2018. One threshold for all classes would keep road and sky and lose every rider.
Here each class has a threshold above which a given fraction of the pixels predicted as that class
lies. Thresholds are read off histograms, so memory does not grow with the number of images.

One difference from the paper: it also divides probabilities by the thresholds before the argmax, so
that a pixel can get a class that the network does not predict. Here a pseudo-label is always the
prediction.
"""

import torch
from torch import Tensor

# Confidence p is measured as log(p / (1 - p)): networks give most of their pixels p > 0.999, where
# steps of p itself would tell little.
_LOWEST, _STEPS, BINS = -4.0, 128, 4096
"""Bins of width 1/128 from -4 (p = 0.018) to 28 (1 - p = 7e-13).

Values outside count as the first or the last bin. Within a bin, 1 - p varies by 0.8 %.
"""


def confidence_bins(
    probabilities: Tensor, agreement: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The most likely class (N, H, W) uint8, and the bin of its probability (N, H, W) int16.

    ``probabilities``: (N, C, H, W). ``agreement`` (N, H, W), from 0 to 1: multiplies the
    probability of the most likely class, for an ensemble.
    """
    probability, prediction = probabilities.max(1, keepdim=True)  # (N, 1, H, W)
    # 1 - p as the sum of the other classes: without the rounding of a difference.
    rest = probabilities.scatter(1, prediction, 0).sum(1, keepdim=True)
    if agreement is not None:
        rest = rest + (1 - agreement[:, None]) * probability
        probability = agreement[:, None] * probability
    position = (probability.log() - rest.log() - _LOWEST) * _STEPS
    return prediction[:, 0].to(torch.uint8), position.clamp(0, BINS - 1)[:, 0].to(torch.int16)


def confidence_of(bins: Tensor) -> Tensor:
    """Lowest probability of each bin, float64; 0 for the first bin, 1 beyond the last."""
    confidence = (bins.double() / _STEPS + _LOWEST).sigmoid()
    return torch.where(bins <= 0, 0.0, torch.where(bins >= BINS, 1.0, confidence))


class ConfidenceHistogram:
    """Number of pixels by predicted class and confidence: ``counts`` (C, BINS) int64 on the CPU."""

    def __init__(self, num_classes: int):
        self.counts = torch.zeros(num_classes, BINS, dtype=torch.int64)

    def add(self, prediction: Tensor, bins: Tensor) -> None:
        """Counts the results of ``confidence_bins`` for any number of images."""
        position = (prediction.long() * BINS + bins.long()).flatten()
        counts = torch.bincount(position, minlength=self.counts.numel())
        self.counts += counts.view_as(self.counts).cpu()

    def thresholds(self, keep: float, min_confidence: float = 0.0) -> Tensor:
        """Lowest bin to keep of each class, (C,) int64.

        The bins from it on hold at least the fraction ``keep`` of the class's pixels, those above
        it do not; nothing below ``min_confidence`` is kept. BINS for a class that is never
        predicted, which keeps nothing. Raises ValueError unless 0 < keep <= 1 and
        0 <= min_confidence < 1.
        """
        if not (0 < keep <= 1 and 0 <= min_confidence < 1):
            raise ValueError(
                f"Expected 0 < keep <= 1 and 0 <= min_confidence < 1, found {keep} and"
                f" {min_confidence}."
            )
        kept = self._kept()[:, :BINS]  # falls from bin to bin
        total = kept[:, :1]
        # The factor: 0.07 * 100 is a little more than 7.
        wanted = (keep * (1 - 1e-12) * total.double()).ceil()
        bins = (kept >= wanted).sum(1) - 1
        if min_confidence > 0:
            logit = torch.tensor(min_confidence, dtype=torch.float64).logit()
            lowest = ((logit - _LOWEST) * _STEPS).ceil().clamp(0, BINS).long()
            bins = bins.clamp(min=lowest)
        return torch.where(total[:, 0] == 0, BINS, bins)

    def kept(self, thresholds: Tensor) -> Tensor:
        """Number of pixels of each class in the bins from its threshold on, (C,) int64."""
        return self._kept().gather(1, thresholds[:, None])[:, 0]

    def largest_confidence(self) -> float:
        """Lowest probability of the highest bin that holds a pixel; 0 without pixels."""
        bins = self.counts.sum(0).nonzero()
        return float(confidence_of(bins[-1])) if len(bins) else 0.0

    def _kept(self) -> Tensor:
        """(C, BINS + 1) int64: the pixels of each class in this bin and all above it; beyond the
        last there are none.
        """
        return torch.nn.functional.pad(self.counts.flip(1).cumsum(1).flip(1), (0, 1))
