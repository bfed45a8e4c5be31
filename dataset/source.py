"""Labelled source images: recognizes the data set of a root by its folders."""

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
        "leftImg8bit/train/CITY/*_leftImg8bit.png with gtFine/train/CITY/*_gtFine_labelIds.png"
        " (Cityscapes)",
    ),
    "synthia": ("RGB", "RGB/*.png with GT/LABELS/*.png (SYNTHIA)"),
}
"""{name in a prepared root: (folder by which a raw root is recognized, its description)}."""


def labelled_images(root: Path) -> ImageList:
    """The labelled images of a GTA5, Cityscapes (split train) or SYNTHIA root, raw or prepared.

    Raises FileNotFoundError for a root of no known data set, ValueError for a root of several, and
    the errors of ``gta5``, ``cityscapes`` and ``synthia`` for an incomplete one.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"No folder {root}. Expected the root of a labelled data set.")
    if (root / FOLDER).is_dir():
        found = [data for data in _LAYOUTS if list((root / FOLDER).glob(f"{data}-*-of-*.jsonl"))]
    else:
        found = [data for data, (folder, _) in _LAYOUTS.items() if (root / folder).is_dir()]
    if not found:
        known = "; ".join(layout for _, layout in _LAYOUTS.values())
        raise FileNotFoundError(
            f"{root} is no labelled data set of a known kind. Expected one of: {known}; or such a"
            " root prepared by scripts.prepare."
        )
    if len(found) > 1:
        raise ValueError(
            f"{root} holds several data sets, {' and '.join(found)}: it is unclear which one to"
            " read. Give each a root of its own."
        )
    if found[0] == "cityscapes-train":
        return cityscapes(root, "train")
    return {"gta5": gta5, "synthia": synthia}[found[0]](root)
