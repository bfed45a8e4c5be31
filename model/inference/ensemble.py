"""Predictions of several networks on the same images: their mean, and how far they agree."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.inference.predictor import Predictor


class EnsemblePrediction(NamedTuple):
    """``probabilities`` (N, C, H, W): mean over the members. ``agreement`` (N, H, W): fraction of
    the members whose most likely class is that of the mean; None for a single member.
    """

    probabilities: Tensor
    agreement: Tensor | None


class Ensemble:
    """Networks with the same classes; each keeps its own input normalization and views."""

    def __init__(self, members: Sequence[Predictor]):
        self.members = list(members)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> EnsemblePrediction:
        """Predicts (N, H, W, 3) uint8 RGB images."""
        total, classes = None, []
        for member in self.members:
            scores = member.class_scores(images)
            probabilities = scores if member.views else scores.softmax(1)
            if len(self.members) == 1:
                return EnsemblePrediction(probabilities, None)
            classes.append(probabilities.argmax(1).to(torch.uint8))
            total = probabilities if total is None else total + probabilities
        mean = total / len(classes)
        agrees = torch.stack(classes) == mean.argmax(1)  # (members, N, H, W)
        return EnsemblePrediction(mean, agrees.float().mean(0))
