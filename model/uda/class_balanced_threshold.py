"""Class-balanced pseudo-labels (CBST: Zou et al., ECCV 2018): of each class, the predictions that
the network is surest of.

One threshold for all classes would keep road and sky and lose every rider. Here each class has its
own, below which all but a given fraction of the pixels predicted as that class lie. Thresholds are
read off histograms, so that memory does not grow with the images.

We depart from the paper in one thing: it also divides probabilities by the thresholds before taking
the argmax, so that a pixel may be labelled with a class that the network does not predict. Here a
pseudo-label is always a prediction.
"""

import torch
from torch import Tensor

# Confidence p is measured as log(p / (1 - p)): networks give most of their pixels p > 0.999, where
# steps of p itself would tell little.
_LOWEST, _STEPS, BINS = -4.0, 128, 4096
"""Bins of 1/128 from -4 (p = 0.018) to 28 (1 - p = 7e-13); what lies outside counts as the first or
the last. 1 - p within a bin varies by 0.8 %.
"""


def confidence_bins(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """(N, C, H, W) class probabilities -> the likeliest class (N, H, W) uint8, and the bin of its
    probability (N, H, W) int16.
    """
    probability, prediction = probabilities.max(1, keepdim=True)  # (N, 1, H, W)
    others = probabilities.scatter(1, prediction, 0).sum(
        1, keepdim=True
    )  # 1 - p, without the rounding of 1 - p
    place = (probability.log() - others.log() - _LOWEST) * _STEPS
    return prediction[:, 0].to(torch.uint8), place.clamp(0, BINS - 1)[:, 0].to(torch.int16)


def confidence_of(bins: Tensor) -> Tensor:
    """The lowest probability that falls into each of ``bins``, float64; 0 for the first bin, 1
    beyond the last.
    """
    confidence = (bins.double() / _STEPS + _LOWEST).sigmoid()
    return torch.where(bins <= 0, 0.0, torch.where(bins >= BINS, 1.0, confidence))


class ConfidenceHistogram:
    """How many pixels are predicted as each class with each confidence: ``counts`` (C, BINS) int64,
    on the CPU.
    """

    def __init__(self, num_classes: int):
        self.counts = torch.zeros(num_classes, BINS, dtype=torch.int64)

    def add(self, prediction: Tensor, bins: Tensor) -> None:
        """What ``confidence_bins`` returned, of any number of images."""
        place = prediction.long() * BINS + bins.long()
        self.counts += (
            torch.bincount(place.flatten(), minlength=self.counts.numel())
            .view_as(self.counts)
            .cpu()
        )

    def thresholds(self, keep: float, min_confidence: float = 0.0) -> Tensor:
        """(C,) int64: the lowest bin to keep of each class. The bins from it on hold at least the
        fraction ``keep`` of the class's pixels, those above it do not; nothing below
        ``min_confidence`` is kept. A class never predicted has BINS, which keeps nothing.

        Raises ValueError unless 0 < keep <= 1 and 0 <= min_confidence < 1.
        """
        if not (0 < keep <= 1 and 0 <= min_confidence < 1):
            raise ValueError(
                f"Expected 0 < keep <= 1 and 0 <= min_confidence < 1, found {keep} and"
                f" {min_confidence}."
            )
        kept = self._kept()[:, :BINS]  # falls from bin to bin
        total = kept[:, :1]
        bins = (kept >= (keep * (1 - 1e-12) * total.double()).ceil()).sum(
            1
        ) - 1  # 0.07 * 100 is a little more than 7
        if min_confidence > 0:
            lowest = (
                ((torch.tensor(min_confidence, dtype=torch.float64).logit() - _LOWEST) * _STEPS)
                .ceil()
                .clamp(0, BINS)
                .long()
            )
            bins = bins.clamp(min=lowest)
        return torch.where(total[:, 0] == 0, BINS, bins)

    def kept(self, thresholds: Tensor) -> Tensor:
        """(C,) int64: the pixels of each class in the bins from its threshold on."""
        return self._kept().gather(1, thresholds[:, None])[:, 0]

    def _kept(self) -> Tensor:
        """(C, BINS + 1) int64: the pixels of each class in this bin and all above it; beyond the
        last there are none.
        """
        return torch.nn.functional.pad(self.counts.flip(1).cumsum(1).flip(1), (0, 1))
