"""SYNTHIA-RAND-CITYSCAPES (Ros et al., CVPR 2016) in its layout, see layouts/synthia.toml."""

from pathlib import Path

from dataset.layout import data_images, find_pairs
from dataset.layout_file import load_layout
from dataset.listing import DataFiles, ImageList


def synthia(root: Path) -> ImageList:
    """All images of a raw or prepared root, sorted, with labels; names are "NNNNNNN".

    ``read_label`` maps SYNTHIA's ids to labelIds. Raises FileNotFoundError with the missing files
    and where to get them, ValueError for labels that are not the original ones, and for a prepared
    root that is incomplete or stale.
    """
    return data_images(root, "train", layout=load_layout("synthia"))


def synthia_tree(root: Path, labels: bool = True) -> DataFiles:
    """The files of a raw root.

    Raises FileNotFoundError when there is no image, or no label though ``labels`` are needed,
    ValueError when the first label is not an original one.
    """
    return find_pairs(load_layout("synthia"), root, "train", labels)
