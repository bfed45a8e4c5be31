"""Scoring a network on a labelled set at full resolution."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.metrics import confusion_matrix
from utils.views import View, mean_probabilities


class Evaluation(NamedTuple):
    """``matrix``: (C, C) int64 on the CPU, rows ground truth; ``ignored``: pixels without a class."""

    matrix: Tensor
    ignored: int


@torch.inference_mode()
def class_scores(
    model: nn.Module,
    image: Tensor,
    normalize: Callable[[Tensor], Tensor],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager],
    views: tuple[View, ...] = (),
) -> Tensor:
    """How likely each class is at every pixel: (N, H, W, 3) uint8 RGB -> (N, C, H, W) float32, on ``device``.

    Logits, or with ``views`` the mean over these of the probabilities. ``model`` offers ``low_resolution``; it is put into evaluation mode
    and back. A model whose weights are in half precision is fed it.
    """
    training = model.training
    model.eval()
    x = normalize(image.to(device, non_blocking=True)).to(next(model.parameters()).dtype)  # (N, 3, H, W)
    if views:
        scores = mean_probabilities(model, x, views, autocast)
    else:
        with autocast():
            scores = _upsample(model.low_resolution(x).logits, x.shape[-2:])
    model.train(training)
    return scores


def predict(
    model: nn.Module,
    image: Tensor,
    normalize: Callable[[Tensor], Tensor],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager],
    views: tuple[View, ...] = (),
) -> Tensor:
    """The most likely class of every pixel: (N, H, W, 3) uint8 RGB -> (N, H, W) uint8 trainIds, on ``device``; see ``class_scores``."""
    # max() rather than argmax(), which is several times slower on a CPU. Softmax would not change the order.
    return class_scores(model, image, normalize, device, autocast, views).max(1).indices.to(torch.uint8)


def _upsample(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, h, w) -> (N, C, *size) float32: interpolated in half precision, neighbouring classes would tie."""
    return F.interpolate(scores.float(), size=tuple(size), mode="bilinear", align_corners=False)


def evaluate(
    model: nn.Module,
    batches: Iterable,
    normalize: Callable[[Tensor], Tensor],
    num_classes: int,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager],
    ignore_index: int = 255,
    views: tuple[View, ...] = (),
    each: Callable[[object, Tensor, Tensor], None] | None = None,
) -> Evaluation:
    """The confusion matrix over all ``batches`` of ``.image`` (N, H, W, 3) uint8 and ``.label`` (N, H, W) uint8, neither resized.

    ``each(batch, prediction, matrix)`` is called after every batch, with its (N, H, W) uint8 trainIds and its own confusion matrix,
    both on the CPU.
    """
    matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    ignored = 0
    for batch in batches:
        prediction = predict(model, batch.image, normalize, device, autocast, views)
        label = batch.label.to(device, non_blocking=True)
        counts = confusion_matrix(label, prediction, num_classes, ignore_index).cpu()
        matrix += counts
        ignored += label.numel() - int(counts.sum())
        if each is not None:
            each(batch, prediction.cpu(), counts)
    return Evaluation(matrix, ignored)
