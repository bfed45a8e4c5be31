"""The picture of some images beside their labels."""

import itertools
from collections.abc import Sequence

import numpy as np

from dataset.class_set import UNKNOWN
from dataset.describe.labels import Labels
from dataset.evenly import evenly
from dataset.find import printable
from dataset.image_io import read_image
from dataset.label_format import LabelFormat
from dataset.label_io import LabelValuesError
from dataset.listing import Frame, ImageList
from utils.report.pictures import image_grid, with_legend

PICTURES, PICTURE_WIDTH = 4, 480
UNNAMED_COLOR = (255, 0, 255)

Row = tuple[str, list[np.ndarray]]
"""The name of an image; the image, and its label if there are any, as pictures."""


def picture_rows(listing: ImageList, labels: Labels | None) -> list[Row]:
    """Images and labels of four pairs that can be read, evenly spaced if possible.

    Pictures are (h, w, 3) uint8 RGB; without labels there are images alone. Raises ValueError where
    nothing can be read.
    """
    chosen = evenly(range(len(listing)), PICTURES)
    others = (index for index in range(len(listing)) if index not in chosen)
    rows: dict[int, list[np.ndarray]] = {}
    faults: list[str] = []
    for index in itertools.chain(chosen, others):
        if len(rows) == min(PICTURES, len(listing)):
            break
        try:
            rows[index] = _pictures(listing[index], labels)
        except (OSError, ValueError) as error:
            faults.append(str(error))
    if not rows:
        raise ValueError(f"None of {len(listing)} images can be drawn. The first: {faults[0]}")
    return [(printable(listing[index].name), rows[index]) for index in sorted(rows)]


def _pictures(frame: Frame, labels: Labels | None) -> list[np.ndarray]:
    """An image, and its label in the colors of the classes if there are any."""
    image = read_image(frame.image)
    if labels is None or labels.shown is None:
        return [image]
    return [image, _colors(labels)[shown_classes(frame, labels)]]


def _colors(labels: Labels) -> np.ndarray:
    """(256, 3) uint8 RGB: the color of each trainId, and that of UNKNOWN."""
    colors = labels.shown.class_set.color_table.copy()
    colors[UNKNOWN] = UNNAMED_COLOR
    return colors


def picture_of(rows: Sequence[Row], labels: Labels | None) -> np.ndarray:
    """The ``picture_rows`` below one another, with a legend: (h, w, 3) uint8 RGB."""
    titles, pictures = zip(*rows, strict=True)
    if labels is None or labels.shown is None:
        return image_grid(pictures, ["image"], titles, PICTURE_WIDTH)
    grid = image_grid(pictures, ["image", "label"], titles, PICTURE_WIDTH)
    names, colors = list(labels.shown.class_set.names), _colors(labels)
    legend_colors = colors[: len(names)]
    if labels.unnamed():
        names.append("(no class)")
        legend_colors = np.concatenate([legend_colors, colors[UNKNOWN][None]])
    return with_legend(grid, names, legend_colors)


def shown_classes(frame: Frame, labels: Labels) -> np.ndarray:
    """(H, W) uint8 trainIds of a label; UNKNOWN for values that no class names."""
    label_format: LabelFormat = labels.shown
    try:
        return label_format.read_train_ids(frame.label)
    except LabelValuesError:
        values = label_format.values(frame.label)
        found, inverse = np.unique(values, return_inverse=True)
        classes = np.array([labels.class_of(value) for value in found.tolist()], np.uint8)
        return classes[inverse].reshape(values.shape)
