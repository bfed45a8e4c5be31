"""Looks at one image, of other sizes or mirrored, whose class probabilities are averaged, of all of
it or of a part.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from model.fused_upsampling import at_least_float32, upsampled_softmax

SMALLEST = 32
"""Pixels a side that the network takes at the least."""


class TTAView(NamedTuple):
    """One look at an image: resized by ``scale``, perhaps mirrored."""

    scale: float
    flip: bool = False


class CropRegion(NamedTuple):
    """A part of each image: its ``size`` (H, W), and its ``affine_theta`` (N, 2, 3), as ``affine_grid``
    takes it: dataset.transforms.CropWindow.affine_theta.
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
"""Test-time augmentation. Scores with it are never to be compared with scores without."""


def mean_probabilities(
    model: nn.Module,
    images: Tensor,
    views: Sequence[TTAView],
    autocast: Callable[[], AbstractContextManager],
    part: CropRegion | None = None,
) -> Tensor:
    """The mean over the ``views`` of the softmax at the size of the images: (N, 3, H, W),
    normalized -> (N, C, H, W) float32.

    ``part``: the images are looked at as a whole, and the softmax is that of their parts, (N, C,
    *part.size).
    """
    size, total = images.shape[-2:], None
    grid = (
        None
        if part is None
        else F.affine_grid(part.affine_theta, [len(images), 1, *part.size], align_corners=False)
    )
    for view in views:
        seen = (
            images
            if view.scale == 1
            else F.interpolate(
                images,
                size=[max(SMALLEST, round(side * view.scale)) for side in size],
                mode="bilinear",
            )
        )
        with autocast():
            logits = model.low_resolution(
                seen.flip(3) if view.flip else seen, with_aux=False
            ).logits
        logits = at_least_float32(logits.flip(3) if view.flip else logits)
        if grid is None:
            probabilities = upsampled_softmax(logits, size)
        else:
            probabilities = F.grid_sample(
                logits.contiguous(), grid, padding_mode="border", align_corners=False
            ).softmax(1)
        total = probabilities if total is None else total + probabilities
    return total if len(views) == 1 else total / len(views)
