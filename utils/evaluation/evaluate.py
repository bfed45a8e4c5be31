"""Scoring a network on a labelled set at full resolution."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from utils.evaluation.metrics import confusion_matrix


class Evaluation(NamedTuple):
    """``matrix``: (C, C) int64 on the CPU, rows ground truth; ``ignored``: pixels without a
    class.
    """

    matrix: Tensor
    ignored: int


def evaluate(
    predict: Callable[[Tensor], Tensor],
    batches: Iterable,
    num_classes: int,
    ignore_index: int = 255,
    each: Callable[[object, Tensor, Tensor], None] | None = None,
) -> Evaluation:
    """The confusion matrix over all ``batches`` of ``.image`` (N, H, W, 3) uint8 and ``.label`` (N,
    H, W) uint8, neither resized.

    ``predict``: images (N, H, W, 3) uint8 RGB -> (N, H, W) uint8 trainIds, on any device.
    ``each(batch, prediction, matrix)`` is called after every batch, with its trainIds and its own
    confusion matrix, both on the CPU.
    """
    matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    ignored = 0
    for batch in batches:
        prediction = predict(batch.image)
        label = batch.label.to(prediction.device, non_blocking=True)
        counts = confusion_matrix(label, prediction, num_classes, ignore_index).cpu()
        matrix += counts
        ignored += label.numel() - int(counts.sum())
        if each is not None:
            each(batch, prediction.cpu(), counts)
    return Evaluation(matrix, ignored)
