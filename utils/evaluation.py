"""Scoring a network on a labelled set at full resolution."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from utils.metrics import confusion_matrix


class Evaluation(NamedTuple):
    """``matrix``: (C, C) int64 on the CPU, rows ground truth; ``ignored``: pixels without a class."""

    matrix: Tensor
    ignored: int


@torch.inference_mode()
def predict(
    model: nn.Module,
    image: Tensor,
    normalize: Callable[[Tensor], Tensor],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager],
) -> Tensor:
    """The most likely class of every pixel: (N, H, W, 3) uint8 RGB -> (N, H, W) uint8 trainIds, on ``device``.

    The model is put into evaluation mode and back.
    """
    training = model.training
    model.eval()
    with autocast():
        logits = model(normalize(image.to(device, non_blocking=True))).logits
    model.train(training)
    return logits.argmax(1).to(torch.uint8)


def evaluate(
    model: nn.Module,
    batches: Iterable,
    normalize: Callable[[Tensor], Tensor],
    num_classes: int,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager],
    ignore_index: int = 255,
) -> Evaluation:
    """The confusion matrix over all ``batches`` of ``.image`` (N, H, W, 3) uint8 and ``.label`` (N, H, W) uint8, neither resized."""
    matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    ignored = 0
    for batch in batches:
        prediction = predict(model, batch.image, normalize, device, autocast)
        label = batch.label.to(device, non_blocking=True)
        matrix += confusion_matrix(label, prediction, num_classes, ignore_index).cpu()
        ignored += int((label == ignore_index).sum())
    return Evaluation(matrix, ignored)
