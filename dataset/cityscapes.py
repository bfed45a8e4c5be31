"""The official Cityscapes tree: ``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`` and ``gtFine/SPLIT/CITY/*_gtFine_labelIds.png``."""

from pathlib import Path

from dataset.listing import Listing, find_files, require_pairs


def cityscapes(root: Path, split: str, labels: bool = True) -> Listing:
    """The frames of ``split`` ("train" or "val"), sorted; names are "CITY/CITY_000000_000000_leftImg8bit".

    ``labels`` False: gtFine is neither needed nor looked at. Raises FileNotFoundError with what is missing and where to get it.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"No folder {root}. --cityscapes expects the folder that holds leftImg8bit/ and gtFine/.")
    image_folder, label_folder = root / "leftImg8bit" / split, root / "gtFine" / split
    images = find_files(image_folder, "_leftImg8bit")
    if not images:
        raise FileNotFoundError(
            f"No images under {image_folder}. Cityscapes needs leftImg8bit/{split}/CITY/*_leftImg8bit.png: "
            f"unpack leftImg8bit_trainvaltest.zip into {root}."
        )
    names = [f"{key}_leftImg8bit" for key in images]
    image_paths = [f"leftImg8bit/{split}/{path}" for path in images.values()]
    if not labels:
        return Listing(root, names, image_paths)
    label_files = find_files(label_folder, "_gtFine_labelIds")
    if not label_files:
        raise FileNotFoundError(
            f"No labels under {label_folder}. Cityscapes needs gtFine/{split}/CITY/*_gtFine_labelIds.png: unpack gtFine_trainvaltest.zip into {root}."
        )
    require_pairs(images, label_files, image_folder, label_folder)
    return Listing(root, names, image_paths, [f"gtFine/{split}/{label_files[key]}" for key in images])
