"""Picture of the images with the lowest IoU, beside their ground truth."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from utils.report.pictures import image_grid, with_legend


class ImageScore(NamedTuple):
    """An image, its mean IoU (fraction of 1) and ``index``, its place in the data set.

    ``image`` (H, W, 3) uint8 RGB; ``truth`` and ``prediction`` (H, W) uint8 trainIds.
    """

    miou: float
    index: int
    name: str
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


def worst_images(images: Iterable[ImageScore], count: int) -> list[ImageScore]:
    """The ``count`` images with the lowest mean IoU; equal ones in the order of the data set."""
    return sorted(images, key=lambda image: (image.miou, image.index))[:count]


def draw_images(
    images: Sequence[ImageScore], class_names: Sequence[str], colors: np.ndarray, ignore_index: int
) -> np.ndarray:
    """A row for each image: image, prediction, ground truth, mistakes.

    ``colors``: (256, 3) uint8 by trainId. Returns (h, w, 3) uint8 RGB.
    """
    rows, titles = [], []
    for miou, _, name, image, truth, prediction in images:
        wrong = (prediction != truth) & (truth != ignore_index)
        mistakes = _pale(image)
        mistakes[wrong] = colors[prediction[wrong]]
        rows.append([image, colors[prediction], colors[truth], mistakes])
        titles.append(
            f"{name}: mean IoU {100 * miou:.2f} %, {100 * wrong.mean():.2f} % of the pixels wrong"
        )
    heads = ["image", "prediction", "ground truth", "mistakes"]
    return with_legend(image_grid(rows, heads, titles), class_names, colors)


def _pale(image: np.ndarray) -> np.ndarray:
    """``image`` in light gray."""
    return (image.mean(2, keepdims=True) * 0.3 + 170).astype(np.uint8).repeat(3, 2)
