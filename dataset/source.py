"""Any labelled source: which of the known trees a root is."""

from pathlib import Path

from dataset.cityscapes import cityscapes
from dataset.gta5 import gta5
from dataset.listing import ImageList
from dataset.prepared.journal import FOLDER
from dataset.synthia import synthia

_LAYOUTS = {
    "gta5": ("images", "images/*.png with labels/*.png (GTA5)"),
    "cityscapes-train": (
        "leftImg8bit/train",
        (
            "leftImg8bit/train/CITY/*_leftImg8bit.png with gtFine/train/CITY/*_gtFine_labelIds.png"
            " (Cityscapes)"
        ),
    ),
    "synthia": ("RGB", "RGB/*.png with GT/LABELS/*.png (SYNTHIA)"),
}
"""{name in a prepared root: (the folder that tells a raw root, what is expected in it)}."""


def labelled_images(root: Path) -> ImageList:
    """The labelled frames of a root in the tree of GTA5, Cityscapes (split train) or SYNTHIA, raw
    or prepared.

    Raises FileNotFoundError for a root that is none of these, ValueError for one that is several,
    and what the data set's own function raises for one that is incomplete.
    """
    root = Path(root)
    if (root / FOLDER).is_dir():
        found = [data for data in _LAYOUTS if list((root / FOLDER).glob(f"{data}-*-of-*.jsonl"))]
    else:
        found = [data for data, (folder, _) in _LAYOUTS.items() if (root / folder).is_dir()]
    if not found:
        known = "; ".join(layout for _, layout in _LAYOUTS.values())
        raise FileNotFoundError(
            f"{root} is no labelled data set that is known here. Expected one of: {known}; or such"
            " a root prepared by scripts.prepare."
        )
    if len(found) > 1:
        raise ValueError(
            f"{root} holds several data sets, {' and '.join(found)}: which one is meant cannot be"
            " told. Give each a root of its own."
        )
    read = {
        "gta5": gta5,
        "cityscapes-train": lambda root: cityscapes(root, "train"),
        "synthia": synthia,
    }
    return read[found[0]](root)
