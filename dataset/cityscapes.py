"""Cityscapes in its official layout.

Images: ``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png``. Labels:
``gtFine/SPLIT/CITY/*_gtFine_labelIds.png``.
"""

from pathlib import Path

from dataset.find import find_files
from dataset.image_io import IMAGE_SUFFIXES
from dataset.listing import DatasetLayout, ImageList, endings_of
from dataset.prepared.journal import prepared_listing

_ENDING, _LABEL_ENDING = "_leftImg8bit", "_gtFine_labelIds"


def cityscapes(root: Path, split: str, labels: bool = True) -> ImageList:
    """The images of ``split`` ("train" or "val") of a raw or prepared root, sorted by name.

    Names are "CITY/CITY_000000_000000_leftImg8bit". Without ``labels`` gtFine is not needed and
    never opened. Raises FileNotFoundError with the missing files and where to get them, ValueError
    for a prepared root that is incomplete or stale.
    """
    prepared = prepared_listing(Path(root), f"cityscapes-{split}", labels, _ENDING)
    return cityscapes_tree(root, split, labels).listing(labels) if prepared is None else prepared


def cityscapes_tree(
    root: Path, split: str, labels: bool = True, twins: list[tuple[str, str]] | None = None
) -> DatasetLayout:
    """The files of ``split`` of a raw root.

    ``twins``: see ``find_files``. Raises FileNotFoundError when there is no image, or no
    label though ``labels`` are needed.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"No folder {root}. --cityscapes expects the folder that holds leftImg8bit/ and"
            " gtFine/."
        )
    image_folder, label_folder = f"leftImg8bit/{split}", f"gtFine/{split}"
    images = _without_repetition(
        find_files(root, image_folder, _ENDING, IMAGE_SUFFIXES, twins=twins), image_folder
    )
    if not images:
        raise FileNotFoundError(
            f"No images under {root / image_folder}. Cityscapes needs"
            f" leftImg8bit/{split}/CITY/*_leftImg8bit.png: unpack leftImg8bit_trainvaltest.zip into"
            f" {root}.{endings_of(root, image_folder)}"
        )
    label_files = {}
    if labels:
        found = find_files(root, label_folder, _LABEL_ENDING, IMAGE_SUFFIXES, False, twins)
        label_files = _without_repetition(found, label_folder)
    if labels and not label_files:
        raise FileNotFoundError(
            f"No labels under {root / label_folder}. Cityscapes needs"
            f" gtFine/{split}/CITY/*_gtFine_labelIds.png: unpack gtFine_trainvaltest.zip into"
            f" {root}.{endings_of(root, label_folder)}"
        )
    return DatasetLayout(root, image_folder, label_folder, images, label_files, _ENDING)


def _without_repetition(files: dict[str, str], folder: str) -> dict[str, str]:
    """Keys without ``folder`` in front, where an archive was unpacked into it once more."""
    for prefix in (f"{folder}/", f"{folder.rsplit('/', 1)[-1]}/"):
        if files and all(key.startswith(prefix) for key in files):
            return {key.removeprefix(prefix): path for key, path in files.items()}
    return files
