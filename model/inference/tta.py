"""Test-time augmentation: multi-scale and flipped predictions, averaged; of images or crops."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from model.fused_upsampling import at_least_float32, upsampled_softmax

MIN_SIZE = 32
"""Smallest height and width of the network's input, in pixels."""


class TTAView(NamedTuple):
    """An augmented copy of an image: resized by ``scale`` and, with ``flip``, mirrored."""

    scale: float
    flip: bool = False

    def apply(self, images: Tensor) -> Tensor:
        """Resizes and mirrors images (N, 3, H, W); each side has at least MIN_SIZE pixels."""
        if self.scale != 1:
            size = [max(MIN_SIZE, round(side * self.scale)) for side in images.shape[-2:]]
            images = F.interpolate(images, size=size, mode="bilinear")
        return images.flip(3) if self.flip else images


class CropRegion(NamedTuple):
    """Crops of a batch of images: one ``size`` (height, width), a position for each image.

    ``affine_theta`` (N, 2, 3) is the argument of ``affine_grid``; see
    dataset.transforms.CropWindow.affine_theta.
    """

    affine_theta: Tensor
    size: tuple[int, int]


TTA_PRESETS = {
    "flip": (TTAView(1.0), TTAView(1.0, True)),
    "multiscale": tuple(
        TTAView(scale, flip)
        for scale in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
        for flip in (False, True)
    ),
}
"""Test-time augmentations by name. Do not compare scores with and without them."""


def mean_probabilities(
    model: nn.Module,
    images: Tensor,
    views: Sequence[TTAView],
    autocast: Callable[[], AbstractContextManager],
    crop: CropRegion | None = None,
) -> Tensor:
    """Class probabilities, averaged over ``views``.

    (N, 3, H, W), normalized -> (N, C, H, W), float32 or float64. With ``crop`` the network sees the
    whole images, and the probabilities are those of the crops: (N, C, *crop.size).
    """
    size, total = images.shape[-2:], None
    grid = None
    if crop is not None:
        shape = [len(images), 1, *crop.size]
        grid = F.affine_grid(crop.affine_theta, shape, align_corners=False)  # (N, h, w, 2)
    for view in views:
        x = view.apply(images)
        with autocast():
            logits = model.low_resolution(x, with_aux=False).logits
        logits = at_least_float32(logits.flip(3) if view.flip else logits)
        if grid is None:
            probabilities = upsampled_softmax(logits, size)
        else:
            crops = F.grid_sample(
                logits.contiguous(), grid, padding_mode="border", align_corners=False
            )
            probabilities = crops.softmax(1)
        total = probabilities if total is None else total + probabilities
    return total if len(views) == 1 else total / len(views)
