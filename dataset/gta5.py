"""The tree of GTA5 ("Playing for Data"): ``images/NNNNN.png`` and ``labels/NNNNN.png``."""

from pathlib import Path

from dataset.listing import Listing, find_files, require_pairs


def gta5(root: Path) -> Listing:
    """All frames, sorted, with labels; names are "NNNNN". Raises FileNotFoundError with what is missing and where to get it."""
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"No folder {root}. --gta5 expects the folder that holds images/ and labels/.")
    images, labels = find_files(root / "images", ""), find_files(root / "labels", "", suffixes=(".png",))
    for found, folder in ((images, "images"), (labels, "labels")):
        if not found:
            raise FileNotFoundError(
                f"No {folder} under {root / folder}. GTA5 needs images/NNNNN.png and labels/NNNNN.png: "
                f"unpack the ten parts 01_{folder}.zip to 10_{folder}.zip into {root}."
            )
    require_pairs(images, labels, root / "images", root / "labels")
    return Listing(root, list(images), [f"images/{path}" for path in images.values()], [f"labels/{labels[key]}" for key in images])
