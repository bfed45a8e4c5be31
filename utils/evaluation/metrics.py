"""Scores out of one confusion matrix over a whole set: never a mean over batches or images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def confusion_matrix(
    label: Tensor, prediction: Tensor, num_classes: int = 19, ignore_index: int = 255
) -> Tensor:
    """Counts of pixels: rows are the ground truth, columns the prediction. (num_classes,
    num_classes) int64 on the label's device.

    Args: label and prediction of equal shape, any integer type (arrays are accepted too); pixels
    labelled ``ignore_index`` are left out, whatever is predicted there. At most 254 classes. Raises
    ValueError for other values outside the classes or unequal shapes.
    """
    label, prediction = torch.as_tensor(label).flatten(), torch.as_tensor(prediction).flatten()
    if label.shape != prediction.shape:
        raise ValueError(
            f"Label and prediction must have the same number of pixels; found {len(label)} and"
            f" {len(prediction)}."
        )
    # Bytes are counted as pairs in one pass, the ignored ones too; what is legal is then seen in
    # the few counts, not in the pixels.
    pairs = torch.bincount(_bytes(label) * 256 + _bytes(prediction), minlength=256 * 256).reshape(
        256, 256
    )
    matrix = pairs[:num_classes, :num_classes].clone()
    if int(matrix.sum() + pairs[ignore_index].sum()) != len(label):
        raise ValueError(
            f"Found classes outside 0-{num_classes - 1} (and not {ignore_index}) in the label or"
            " the prediction."
        )
    return matrix


def _bytes(values: Tensor) -> Tensor:
    """int32 values of 0-255. Others, which no class has, become 254: as illegal, and in range."""
    if values.dtype == torch.uint8:
        return values.int()
    return torch.where((values >= 0) & (values <= 255), values, 254).int()


@dataclass(frozen=True)
class Scores:
    """All as fractions of 1. NaN marks the undefined: a class (or a whole set) without pixels.

    pixel_accuracy: right / valid pixels. pixel_accuracy_with_void: right / all pixels, the ignored
    ones counted as wrong (the paper's 79.60 and 81.60). mean_class_accuracy: mean of the classes'
    recalls (the paper's 43.02 to 46.90). iou: per class. miou: mean of the IoUs of ``classes`` that
    are defined, ``averaged`` many; a subset's IoUs come from the full matrix.
    """

    pixel_accuracy: float
    pixel_accuracy_with_void: float
    mean_class_accuracy: float
    miou: float
    iou: tuple[float, ...]
    classes: tuple[int, ...]
    averaged: int


def scores(
    matrix: Tensor | np.ndarray, ignored: int = 0, classes: Sequence[int] | None = None
) -> Scores:
    """The Scores of a confusion matrix (C, C), rows ground truth.

    ``ignored``: number of ignored pixels; ``classes``: trainIds that the means are taken over
    (default all).
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    chosen = tuple(range(len(matrix))) if classes is None else tuple(classes)
    right, truth, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = right / (truth + predicted - right)
        recall = right / truth
        pixel_accuracy = right.sum() / matrix.sum()
        with_void = right.sum() / (matrix.sum() + ignored)
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
