"""GTA5 ("Playing for Data") in its layout: ``images/NNNNN.png`` and ``labels/NNNNN.png``."""

from pathlib import Path

from dataset.find import find_files
from dataset.image_io import IMAGE_SUFFIXES
from dataset.listing import DatasetLayout, ImageList, endings_of, matched_keys
from dataset.prepared.journal import prepared_listing


def gta5(root: Path) -> ImageList:
    """All images of a raw or prepared root, sorted, with labels; names are "NNNNN".

    Raises FileNotFoundError with the missing files and where to get them, ValueError for a prepared
    root that is incomplete or stale.
    """
    prepared = prepared_listing(Path(root), "gta5")
    return gta5_tree(root).listing(labels=True) if prepared is None else prepared


def gta5_tree(
    root: Path, labels: bool = True, twins: list[tuple[str, str]] | None = None
) -> DatasetLayout:
    """The files of a raw root.

    ``twins``: see ``find_files``. Raises FileNotFoundError when there is no image, or no
    label though ``labels`` are needed.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"No folder {root}. --gta5 expects the folder that holds images/ and labels/."
        )
    images = find_files(root, "images", "", IMAGE_SUFFIXES, twins=twins)
    label_files = find_files(root, "labels", "", (".png",), labels, twins)
    images, label_files = matched_keys(images, label_files)
    for files, folder in ((images, "images"), (label_files, "labels")):
        if not files and (folder == "images" or labels):
            raise FileNotFoundError(
                f"No {folder} under {root / folder}. GTA5 needs images/NNNNN.png and"
                f" labels/NNNNN.png: unpack the ten parts 01_{folder}.zip to 10_{folder}.zip into"
                f" {root}.{endings_of(root, folder)}"
            )
    return DatasetLayout(root, "images", "labels", images, label_files)
