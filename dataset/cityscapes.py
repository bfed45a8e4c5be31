"""The official Cityscapes tree: ``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`` and ``gtFine/SPLIT/CITY/*_gtFine_labelIds.png``."""

from pathlib import Path

from dataset.listing import Listing, Tree, find_files
from dataset.prepared import prepared_listing

_ENDING, _LABEL_ENDING = "_leftImg8bit", "_gtFine_labelIds"


def cityscapes(root: Path, split: str, labels: bool = True, label_root: Path | None = None) -> Listing:
    """The frames of ``split`` ("train" or "val") of a raw or prepared root, sorted; names are "CITY/CITY_000000_000000_leftImg8bit".

    ``labels`` False: gtFine is neither needed nor looked at. ``label_root``: the labels are those of another root (``with_labels``), and
    the gtFine of ``root`` is not looked at either. Raises FileNotFoundError with what is missing and where to get it, ValueError for a
    prepared root that is incomplete or stale.
    """
    if labels and label_root is not None:
        return with_labels(cityscapes(root, split, labels=False), label_root, split)
    prepared = prepared_listing(Path(root), f"cityscapes-{split}", labels, _ENDING)
    return cityscapes_tree(root, split, labels).listing(labels) if prepared is None else prepared


def label_path(name: str, split: str) -> str:
    """Where the label of the image called ``name`` lies below a root: gtFine/SPLIT/CITY/*_gtFine_labelIds.png."""
    return f"gtFine/{split}/{name.removesuffix(_ENDING)}{_LABEL_ENDING}.png"


def with_labels(listing: Listing, label_root: Path, split: str = "train") -> Listing:
    """The images of any ``listing`` with the labels that lie at their ``label_path`` below ``label_root``: pseudo-labels, of whatever tool.

    Labels of other images are not looked at. Raises FileNotFoundError unless every image has one.
    """
    label_root = Path(label_root).absolute()
    present = find_files(label_root, f"gtFine/{split}", _LABEL_ENDING, suffixes=(".png",))
    keys = [name.removesuffix(_ENDING) for name in listing.names]
    lonely = [key for key in keys if key not in present]
    if lonely:
        raise FileNotFoundError(
            f"{len(lonely)} of {len(keys)} images have no label under {label_root}, the first {label_root / label_path(lonely[0], split)}. "
            "Make the rest (python -m scripts.make_pseudo_labels goes on where it stopped), or name the labelled images in a list."
        )
    return listing.labelled([str(label_root / present[key]) for key in keys])


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
    label_files = find_files(root, label_folder, _LABEL_ENDING) if labels else {}
    if labels and not label_files:
        raise FileNotFoundError(
            f"No labels under {root / label_folder}. Cityscapes needs gtFine/{split}/CITY/*_gtFine_labelIds.png: "
            f"unpack gtFine_trainvaltest.zip into {root}."
        )
    return Tree(root, image_folder, label_folder, images, label_files, _ENDING)
