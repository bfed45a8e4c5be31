"""Labelled source images: recognizes the data set of a root, or takes the layout that is named."""

from pathlib import Path

from dataset.class_set import ClassSet
from dataset.layout import data_images
from dataset.layout_file import load_layout
from dataset.listing import ImageList


def labelled_images(
    root: Path,
    layout: str | Path | None = None,
    class_set: ClassSet | None = None,
    list_file: Path | None = None,
) -> ImageList:
    """The labelled images (split train) of a raw or prepared root.

    ``layout``: name or TOML file; by default the root is recognized. ``class_set``: of its labels;
    by default that of the layout. ``list_file``: names the images; default: all. Raises
    FileNotFoundError for a root of no known data set, ValueError for a root of several, and what
    ``dataset.layout.data_images`` raises for an incomplete one.
    """
    layout = None if layout is None else load_layout(layout)
    return data_images(root, "train", layout=layout, class_set=class_set, list_file=list_file)
