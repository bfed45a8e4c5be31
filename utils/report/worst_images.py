"""Pictures of mistakes: a confusion matrix, and the images with the lowest IoU."""

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from utils.evaluation.metrics import scores
from utils.files import write_png
from utils.report.pictures import confusion_picture, image_grid, with_legend
from utils.report.tables import percent
from utils.training.distributed import ProcessGroup

NUM_WORST_IMAGES = 8


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


class MistakePictures:
    """Pictures of one model's mistakes on a data set.

    Every process adds the images it scores; the first process writes confusion_matrix.png and
    worst_images.png into ``folder``. ``image_names``: of the whole data set. ``class_names`` and
    ``colors`` (256, 3) uint8 RGB: of the classes.
    """

    def __init__(
        self,
        folder: Path,
        image_names: Sequence[str],
        class_names: Sequence[str],
        colors: np.ndarray,
        ignore_index: int,
    ):
        self.folder, self.image_names = folder, image_names
        self.class_names, self.colors, self.ignore_index = class_names, colors, ignore_index
        self._worst: list[ImageScore] = []

    def add(self, index: int, maps: Iterable[Tensor], matrix: Tensor) -> None:
        """Adds the image ``index``; one without a labelled pixel is left out.

        ``maps``: image (H, W, 3) uint8 RGB, ground truth and prediction (H, W) uint8, on the CPU.
        ``matrix``: its confusion matrix.
        """
        if matrix.any():
            name = self.image_names[index]
            score = ImageScore(scores(matrix).miou, index, name, *(x.numpy() for x in maps))
            self._worst = worst_images([*self._worst, score], NUM_WORST_IMAGES)

    def write(self, matrix: Tensor, model: str, processes: ProcessGroup) -> None:
        """Writes both pictures. ``matrix``: of all images; ``model``: its name.

        All processes call it.
        """
        worst = worst_images(chain(*processes.gather(self._worst)), NUM_WORST_IMAGES)
        if not processes.is_first:
            return
        miou, count = percent(scores(matrix).miou), len(self.image_names)
        title = f"{model}: mIoU over all classes {miou} % on {count} images"
        picture = confusion_picture(matrix.numpy(), self.class_names, title)
        write_png(self.folder / "confusion_matrix.png", picture)
        picture = draw_images(worst, self.class_names, self.colors, self.ignore_index)
        write_png(self.folder / "worst_images.png", picture)


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
        labelled = truth != ignore_index
        wrong = (prediction != truth) & labelled
        mistakes = _pale(image)
        mistakes[wrong] = colors[prediction[wrong]]
        rows.append([image, colors[prediction], colors[truth], mistakes])
        share = 100 * wrong.sum() / labelled.sum()
        titles.append(
            f"{name}: mean IoU {100 * miou:.2f} %, {share:.2f} % of labelled pixels wrong"
        )
    heads = ["image", "prediction", "ground truth", "mistakes"]
    return with_legend(image_grid(rows, heads, titles), class_names, colors)


def _pale(image: np.ndarray) -> np.ndarray:
    """``image`` in light gray."""
    return (image.mean(2, keepdims=True) * 0.3 + 170).astype(np.uint8).repeat(3, 2)
