"""Predicts merged classes: their probabilities are summed before the argmax."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from model.fused_upsampling import class_map
from model.inference.predictor import Predictor


class BothPredictions(NamedTuple):
    """Class maps (N, H, W) uint8 of one forward pass: in merged classes, and in the network's."""

    merged: Tensor
    own: Tensor


class MergedPredictor:
    """Predicts class maps in the merged classes of a network.

    A pixel is "vehicle" where car, truck and bus together are likelier than every other merged
    class, though none of them is the likeliest class.

    Args:
        predictor: of the network, perhaps with test-time augmentation.
        matrix: (C, M) of 0 and 1: class c belongs to merged class m. Raises ValueError where a
            merged class has no class, or a class several merged ones.

    ``engine``: its name in results; the eager network is the only one (see EngineChoice).
    """

    engine = "eager"

    def __init__(self, predictor: Predictor, matrix: Tensor):
        matrix = torch.as_tensor(matrix, dtype=torch.float32)
        if (matrix.sum(0) < 1).any() or (matrix.sum(1) > 1).any():
            raise ValueError(
                "Expected a matrix that gives each merged class at least one class, and no class to"
                " two of them."
            )
        self.predictor, self.matrix = predictor, matrix.to(predictor.device)

    def expect(self, images: int) -> None:
        """Takes note of the number of images to come, which an EngineChoice needs."""

    def class_scores(self, images: Tensor) -> Tensor:
        """Probabilities of the merged classes: (N, H, W, 3) uint8 -> (N, M, H, W) float32.

        They sum to less than 1 where the network sees a class that belongs to no merged one.
        """
        return self._merged(self.predictor.class_scores(images))

    def __call__(self, images: Tensor) -> Tensor:
        """Predicts merged class maps: (N, H, W, 3) uint8 RGB -> (N, H, W) uint8 on the device."""
        return class_map(self.class_scores(images))

    def both(self, images: Tensor) -> BothPredictions:
        """Class maps in the merged and in the network's own classes, of one forward pass."""
        scores = self.predictor.class_scores(images)
        return BothPredictions(class_map(self._merged(scores)), class_map(scores))

    def _merged(self, scores: Tensor) -> Tensor:
        """Scores of ``Predictor.class_scores`` (N, C, H, W) -> probabilities (N, M, H, W)."""
        probabilities = scores if self.predictor.views else scores.softmax(1)
        return torch.einsum("nchw,cm->nmhw", probabilities, self.matrix)


class SavedPrediction:
    """Predicts class maps to score, and keeps the last one as it is to be saved.

    The two differ where a MergedPredictor scores merged classes and the network's ``own_classes``
    are saved. ``class_map`` (N, H, W) uint8: the last one to save.
    """

    class_map: Tensor

    def __init__(self, predict: Callable[[Tensor], Tensor], own_classes: bool):
        self.predict = predict
        self.own_classes = own_classes and isinstance(predict, MergedPredictor)

    def __call__(self, images: Tensor) -> Tensor:
        """Class maps to score: (N, H, W, 3) uint8 RGB -> (N, H, W) uint8."""
        if self.own_classes:
            scored, self.class_map = self.predict.both(images)
        else:
            scored = self.class_map = self.predict(images)
        return scored
