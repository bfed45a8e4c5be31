"""GTA5 ("Playing for Data") in its layout, see layouts/gta5.toml."""

from pathlib import Path

from dataset.layout import data_images, find_pairs
from dataset.layout_file import load_layout
from dataset.listing import DataFiles, ImageList


def gta5(root: Path) -> ImageList:
    """All images of a raw or prepared root, sorted, with labels; names are "NNNNN".

    Raises FileNotFoundError with the missing files and where to get them, ValueError for a prepared
    root that is incomplete or stale.
    """
    return data_images(root, "train", layout=load_layout("gta5"))


def gta5_tree(root: Path, labels: bool = True) -> DataFiles:
    """The files of a raw root.

    Raises FileNotFoundError when there is no image, or no label though ``labels`` are needed.
    """
    return find_pairs(load_layout("gta5"), root, "train", labels)
