"""The tree of GTA5 ("Playing for Data"): ``images/NNNNN.png`` and ``labels/NNNNN.png``."""

from pathlib import Path

from dataset.listing import DatasetLayout, ImageList, find_files
from dataset.prepared.journal import prepared_listing


def gta5(root: Path) -> ImageList:
    """All frames of a raw or prepared root, sorted, with labels; names are "NNNNN".

    Raises FileNotFoundError with what is missing and where to get it, ValueError for a prepared
    root that is incomplete or stale.
    """
    prepared = prepared_listing(Path(root), "gta5")
    return gta5_tree(root).listing(labels=True) if prepared is None else prepared


def gta5_tree(root: Path, labels: bool = True) -> DatasetLayout:
    """The files of a raw root. Raises FileNotFoundError where there is no image, or no label though
    ``labels`` are wanted.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"No folder {root}. --gta5 expects the folder that holds images/ and labels/."
        )
    tree = DatasetLayout(
        root,
        "images",
        "labels",
        find_files(root, "images", ""),
        find_files(root, "labels", "", suffixes=(".png",)),
    )
    for found, folder in ((tree.images, "images"), (tree.labels, "labels")):
        if not found and (folder == "images" or labels):
            raise FileNotFoundError(
                f"No {folder} under {root / folder}. GTA5 needs images/NNNNN.png and"
                f" labels/NNNNN.png: unpack the ten parts 01_{folder}.zip to 10_{folder}.zip into"
                f" {root}."
            )
    return tree
