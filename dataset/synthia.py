"""SYNTHIA-RAND-CITYSCAPES (Ros et al., CVPR 2016) in its layout.

Images: ``RGB/NNNNNNN.png``. Labels: ``GT/LABELS/NNNNNNN.png``.
"""

from pathlib import Path

from dataset.find import find_files
from dataset.image_io import IMAGE_SUFFIXES, is_synthia_label
from dataset.listing import DatasetLayout, ImageList, endings_of, matched_keys
from dataset.prepared.journal import prepared_listing

_IMAGES, _LABELS = "RGB", "GT/LABELS"


def synthia(root: Path) -> ImageList:
    """All images of a raw or prepared root, sorted, with labels; names are "NNNNNNN".

    ``read_label`` maps SYNTHIA's ids to labelIds. Raises FileNotFoundError with the missing files
    and where to get them, ValueError for labels that are not the original ones, and for a prepared
    root that is incomplete or stale.
    """
    prepared = prepared_listing(Path(root), "synthia")
    return synthia_tree(root).listing(labels=True) if prepared is None else prepared


def synthia_tree(
    root: Path, labels: bool = True, twins: list[tuple[str, str]] | None = None
) -> DatasetLayout:
    """The files of a raw root.

    ``twins``: see ``find_files``. Raises FileNotFoundError when there is no image, or no
    label though ``labels`` are needed, ValueError when the first label is not an original one.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"No folder {root}. SYNTHIA is expected in the folder that holds {_IMAGES}/ and"
            f" {_LABELS}/."
        )
    images = find_files(root, _IMAGES, "", IMAGE_SUFFIXES, twins=twins)
    label_files = {
        key: path
        for key, path in find_files(root, _LABELS, "", (".png",), labels, twins).items()
        if not key.endswith("_labelTrainIds")  # written there by converters of other projects
    }
    images, label_files = matched_keys(images, label_files)
    for files, folder in ((images, _IMAGES), (label_files, _LABELS)):
        if not files and (folder == _IMAGES or labels):
            raise FileNotFoundError(
                f"No files under {root / folder}. SYNTHIA needs {_IMAGES}/NNNNNNN.png and"
                f" {_LABELS}/NNNNNNN.png: unpack SYNTHIA_RAND_CITYSCAPES (from synthia-dataset.net)"
                f" and give its folder RAND_CITYSCAPES.{endings_of(root, folder)}"
            )
    if labels and not is_synthia_label(first := root / next(iter(label_files.values()))):
        raise ValueError(
            f"{first} is no label of SYNTHIA: these are PNGs of 16 bits in several channels, with"
            " SYNTHIA's class in the first. The classes of a converted copy are unknown: use the"
            " original files of GT/LABELS."
        )
    return DatasetLayout(root, _IMAGES, _LABELS, images, label_files)
