"""How much the labels of a teacher weigh: self-training learns from what its teacher is sure of."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

PER = ("image", "pixel", "class")
_MEMORY = 0.98
"""What a step leaves of the sums before it: thresholds of classes are means over some fifty
steps.
"""


class Confidence(nn.Module):
    """A teacher is sure of a pixel whose probability exceeds ``threshold``.

    ``per``: "image": all pixels weigh as much as the share of their image that it is sure of (DACS,
    Tranheden et al., WACV 2021). "pixel": those it is sure of weigh 1, the others nothing
    (FixMatch, Sohn et al., NeurIPS 2020). "class": the same, but the threshold of a class is no
    higher than the mean probability of the pixels that got its label in the last steps: about half
    of them count, of a class that the teacher hesitates over as well. That thresholds differ by
    class is CBST's (Zou et al., ECCV 2018); that they are running means, FreeMatch's (Wang et al.,
    ICLR 2023).

    ``pseudo_weight``: what a pixel that counts weighs, where a pasted one weighs 1 or what its
    class does. ``total`` sums a tensor over the processes of the run. Raises ValueError for another
    ``per``.
    """

    def __init__(
        self,
        threshold: float,
        per: str = "image",
        num_classes: int = 19,
        total: Callable[[Tensor], Tensor] = lambda sums: sums,
        pseudo_weight: float = 1.0,
    ):
        super().__init__()
        if per not in PER:
            raise ValueError(f"Unknown confidence per {per!r}; expected one of {', '.join(PER)}.")
        self.threshold, self.per, self.pseudo_weight, self._total = (
            threshold,
            per,
            pseudo_weight,
            total,
        )
        # Of each class: the sum of the probabilities, and how many pixels. The second are of the
        # step that is under way.
        self.register_buffer("sums", torch.zeros(2, num_classes, dtype=torch.float64))
        self.register_buffer(
            "_step", torch.zeros(2, num_classes, dtype=torch.float64), persistent=False
        )

    def sure(self, label: Tensor, probability: Tensor, ignored: Tensor) -> Tensor:
        """Of the teacher's labels (N, H, W) int64 and their probabilities, which it is sure of: (N,
        H, W) bool, never an ``ignored`` pixel.
        """
        threshold = self.threshold
        if self.per == "class":
            valid = (~ignored).double()
            values = torch.stack([probability * valid, valid]).flatten(1)
            self._step.index_add_(1, label.flatten(), values)
            threshold = self.thresholds()[label]
        return (probability > threshold) & ~ignored

    def thresholds(self) -> Tensor:
        """(C,) of the classes; those not seen yet have ``threshold``."""
        probabilities, pixels = self.sums
        return torch.where(pixels > 0, probabilities / pixels, 1.0).clamp(max=self.threshold)

    def weight(self, sure: Tensor, ignored: Tensor) -> Tensor:
        """(N, H, W) or (N, 1, 1)."""
        return self.pseudo_weight * (
            sure_share(sure, ignored)[:, None, None] if self.per == "image" else sure.float()
        )

    def after_step(self) -> None:
        """To be called when all parts of a step's batch were seen: thresholds are the same for all
        of them.
        """
        if self.per == "class":
            self.sums.mul_(_MEMORY).add_(self._total(self._step))
            self._step.zero_()


def sure_share(sure: Tensor, ignored: Tensor) -> Tensor:
    """(N,): of each image's pixels that are not ignored, the share that the teacher is sure of.
    Both (N, H, W) bool.
    """
    return sure.sum((1, 2)) / (~ignored).sum((1, 2)).clamp(min=1)
