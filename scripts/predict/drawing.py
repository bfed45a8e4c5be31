"""What --save draws: overlays, color maps and label maps."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset.class_set import ClassSet
from dataset.labels import LABEL_ID_OF
from utils.report.pictures import overlay, resize_to_width, with_legend

LEGEND_WIDTH = 640
"""Pictures with a legend are enlarged, by an integer factor, to about this width in pixels, unless
they get higher than twice this.
"""

KINDS = ("overlay", "color", "labelIds", "trainIds")
"""What --save draws."""


class Results(NamedTuple):
    """The files to write: a folder, kinds of --save, and whether pictures have a legend."""

    folder: Path
    kinds: list[str]
    has_legend: bool = True


def render(
    kind: str, image: np.ndarray, train_ids: np.ndarray, class_set: ClassSet, has_legend: bool
) -> np.ndarray:
    """Draws a kind of --save: a picture (h, w, 3), or a label map (H, W)."""
    if kind in ("labelIds", "trainIds"):
        return train_ids if kind == "trainIds" else LABEL_ID_OF[train_ids]
    colors = class_set.color_table
    picture = overlay(image, train_ids, colors) if kind == "overlay" else colors[train_ids]
    if not has_legend:
        return picture
    height, width = picture.shape[:2]
    factor = max(1, round(min(LEGEND_WIDTH / width, 2 * LEGEND_WIDTH / height)))
    return with_legend(resize_to_width(picture, factor * width), class_set.names, colors)
