"""Labelled source images: recognizes the data set of a root, or takes the layout that is named."""

from pathlib import Path

from dataset.layout import data_images
from dataset.layout_file import load_layout
from dataset.listing import ImageList


def labelled_images(root: Path, layout: str | Path | None = None) -> ImageList:
    """The labelled images (split train) of a raw or prepared root.

    ``layout``: name or TOML file; by default the root is recognized. Raises FileNotFoundError for a
    root of no known data set, ValueError for a root of several, and what
    ``dataset.layout.find_pairs`` raises for an incomplete one.
    """
    return data_images(root, "train", layout=None if layout is None else load_layout(layout))
