"""The official Cityscapes tree: ``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`` and ``gtFine/SPLIT/CITY/*_gtFine_labelIds.png``."""

from pathlib import Path

from dataset.listing import Listing, Tree, find_files
from dataset.prepared import prepared_listing

_ENDING = "_leftImg8bit"


def cityscapes(root: Path, split: str, labels: bool = True) -> Listing:
    """The frames of ``split`` ("train" or "val") of a raw or prepared root, sorted; names are "CITY/CITY_000000_000000_leftImg8bit".

    ``labels`` False: gtFine is neither needed nor looked at. Raises FileNotFoundError with what is missing and where to get it,
    ValueError for a prepared root that is incomplete or stale.
    """
    prepared = prepared_listing(Path(root), f"cityscapes-{split}", labels, _ENDING)
    return cityscapes_tree(root, split, labels).listing(labels) if prepared is None else prepared


def cityscapes_tree(root: Path, split: str, labels: bool = True) -> Tree:
    """The files of ``split`` of a raw root. Raises FileNotFoundError where there is no image, or no label though ``labels`` are wanted."""
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"No folder {root}. --cityscapes expects the folder that holds leftImg8bit/ and gtFine/.")
    image_folder, label_folder = f"leftImg8bit/{split}", f"gtFine/{split}"
    images = find_files(root, image_folder, _ENDING)
    if not images:
        raise FileNotFoundError(
            f"No images under {root / image_folder}. Cityscapes needs leftImg8bit/{split}/CITY/*_leftImg8bit.png: "
            f"unpack leftImg8bit_trainvaltest.zip into {root}."
        )
    label_files = find_files(root, label_folder, "_gtFine_labelIds") if labels else {}
    if labels and not label_files:
        raise FileNotFoundError(
            f"No labels under {root / label_folder}. Cityscapes needs gtFine/{split}/CITY/*_gtFine_labelIds.png: "
            f"unpack gtFine_trainvaltest.zip into {root}."
        )
    return Tree(root, image_folder, label_folder, images, label_files, _ENDING)
