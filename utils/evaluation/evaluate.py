"""Confusion matrix of a predictor over a labelled data set, at full resolution."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from utils.evaluation.metrics import confusion_matrix


class Evaluation(NamedTuple):
    """Pixel counts over a data set.

    ``matrix``: (C, C) int64 on the CPU, rows are the ground truth. ``ignored``: the number of
    pixels without a class.
    """

    matrix: Tensor
    ignored: int


def evaluate(
    predict: Callable[[Tensor], Tensor],
    batches: Iterable,
    num_classes: int,
    ignore_index: int = 255,
    on_batch: Callable[[object, Tensor, Tensor], None] | None = None,
) -> Evaluation:
    """The confusion matrix over all ``batches``; neither images nor labels are resized.

    A batch has ``.image`` (N, H, W, 3) uint8 RGB and ``.label`` (N, H, W) uint8 trainIds.
    ``predict``: images -> (N, H, W) uint8 trainIds, on any device.
    ``on_batch(batch, prediction, matrix)`` is called after each batch with its prediction and its
    confusion matrix, both on the CPU.
    """
    matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    ignored = 0
    for batch in batches:
        prediction = predict(batch.image)
        label = batch.label.to(prediction.device, non_blocking=True)
        batch_matrix = confusion_matrix(label, prediction, num_classes, ignore_index).cpu()
        matrix += batch_matrix
        ignored += label.numel() - int(batch_matrix.sum())
        if on_batch is not None:
            on_batch(batch, prediction.cpu(), batch_matrix)
    return Evaluation(matrix, ignored)
