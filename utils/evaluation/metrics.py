"""Scores of one confusion matrix over a whole data set: never a mean over batches or images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def confusion_matrix(
    label: Tensor, prediction: Tensor, num_classes: int = 19, ignore_index: int = 255
) -> Tensor:
    """Counts the pixels of each pair of classes: rows are the ground truth, columns the prediction.

    Args: label and prediction of equal shape, any integer type (arrays are accepted too), at most
    254 classes. Pixels labelled ``ignore_index`` are left out, whatever is predicted there.
    Returns (num_classes, num_classes) int64 on the label's device.
    Raises ValueError for values outside the classes and for unequal shapes.
    """
    label, prediction = torch.as_tensor(label).flatten(), torch.as_tensor(prediction).flatten()
    if label.shape != prediction.shape:
        raise ValueError(
            "Label and prediction must have the same number of pixels; found"
            f" {len(label)} and {len(prediction)}."
        )
    # All pairs of bytes are counted in one pass, the ignored pixels too. Values outside the classes
    # are then found in the 256x256 counts, not in the pixels.
    pairs = torch.bincount(_bytes(label) * 256 + _bytes(prediction), minlength=256 * 256)
    pairs = pairs.reshape(256, 256)
    matrix = pairs[:num_classes, :num_classes].clone()
    if int(matrix.sum() + pairs[ignore_index].sum()) != len(label):
        raise ValueError(
            f"Found classes outside 0-{num_classes - 1} (and not {ignore_index}) in the label or"
            " the prediction."
        )
    return matrix


def _bytes(values: Tensor) -> Tensor:
    """int32 values of 0-255; others become 254, which no class has."""
    if values.dtype == torch.uint8:
        return values.int()
    return torch.where((values >= 0) & (values <= 255), values, 254).int()


@dataclass(frozen=True)
class Scores:
    """Scores as fractions of 1; NaN where a class (or the whole data set) has no pixels."""

    pixel_accuracy: float
    """Correct pixels / valid pixels."""
    pixel_accuracy_with_void: float
    """Correct pixels / all pixels, the ignored ones counted as wrong (the paper's 79.60, 81.60)."""
    mean_class_accuracy: float
    """Mean recall of ``classes`` (the paper's 43.02 to 46.90)."""
    miou: float
    """Mean IoU of ``classes``, over those whose IoU is defined."""
    iou: tuple[float, ...]
    """IoU of every class, by trainId, from the full matrix."""
    classes: tuple[int, ...]
    """TrainIds that the means are taken over."""
    averaged: int
    """Number of IoUs in ``miou``."""


def scores(
    matrix: Tensor | np.ndarray, ignored: int = 0, classes: Sequence[int] | None = None
) -> Scores:
    """Scores of a confusion matrix (C, C), rows the ground truth.

    ``ignored``: number of ignored pixels. ``classes``: trainIds that the means are taken over;
    default: all.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    chosen = tuple(range(len(matrix))) if classes is None else tuple(classes)
    correct, truth, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = correct / (truth + predicted - correct)
        recall = correct / truth
        pixel_accuracy = correct.sum() / matrix.sum()
        with_void = correct.sum() / (matrix.sum() + ignored)
    defined = [c for c in chosen if not np.isnan(iou[c])]
    present = [c for c in chosen if not np.isnan(recall[c])]
    return Scores(
        pixel_accuracy=float(pixel_accuracy),
        pixel_accuracy_with_void=float(with_void),
        mean_class_accuracy=float(np.mean(recall[present])) if present else float("nan"),
        miou=float(np.mean(iou[defined])) if defined else float("nan"),
        iou=tuple(iou.tolist()),
        classes=chosen,
        averaged=len(defined),
    )
