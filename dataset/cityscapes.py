"""Cityscapes in its official layout, see layouts/cityscapes.toml."""

from pathlib import Path

from dataset.layout import data_images, find_pairs
from dataset.layout_file import load_layout
from dataset.listing import DataFiles, ImageList


def cityscapes(root: Path, split: str, labels: bool = True) -> ImageList:
    """The images of ``split`` ("train" or "val") of a raw or prepared root, sorted by name.

    Names are "CITY/CITY_000000_000000_leftImg8bit". Without ``labels`` gtFine is not needed and
    never opened. Raises FileNotFoundError with the missing files and where to get them, ValueError
    for a prepared root that is incomplete or stale.
    """
    return data_images(root, split, labels, load_layout("cityscapes"))


def cityscapes_tree(root: Path, split: str, labels: bool = True) -> DataFiles:
    """The files of ``split`` of a raw root.

    Raises FileNotFoundError when there is no image, or no label though ``labels`` are needed.
    """
    return find_pairs(load_layout("cityscapes"), root, split, labels)
