"""Pseudo-labels: where scripts.make_pseudo_labels writes them, and images with them."""

import json
from pathlib import Path
from typing import Any

from dataset.class_set import ClassSet
from dataset.find import find_files
from dataset.label_format import CITYSCAPES_LABELS, LabelFormat
from dataset.listing import ImageList
from dataset.listing_check import check_listing

_ENDING = "_leftImg8bit"
_LABEL_ENDINGS = {True: "_gtFine_labelIds", False: "_gtFine_labelTrainIds"}
"""Ending of label files, by LabelFormat.holds_label_ids."""


def label_path(name: str, split: str, label_format: LabelFormat = CITYSCAPES_LABELS) -> str:
    """Path of the label of the image ``name`` below a root: gtFine/SPLIT/NAME_gtFine_labelIds.png.

    ``name`` is that of its ImageList; the ending _leftImg8bit is dropped. Labels of trainIds end in
    _gtFine_labelTrainIds.png.
    """
    ending = _LABEL_ENDINGS[label_format.holds_label_ids]
    return f"gtFine/{split}/{name.removesuffix(_ENDING)}{ending}.png"


def with_labels(
    listing: ImageList,
    label_root: Path,
    split: str = "train",
    label_format: LabelFormat = CITYSCAPES_LABELS,
) -> ImageList:
    """The images of ``listing`` with pseudo-labels from ``label_root``, at their ``label_path``.

    Labels of other images are ignored. Raises FileNotFoundError unless every image has a label,
    ValueError for labels of other classes, and what ``check_listing`` raises.
    """
    label_root = Path(label_root).absolute()
    _require_classes(label_root, split, label_format.class_set)
    ending = _LABEL_ENDINGS[label_format.holds_label_ids]
    present = find_files(label_root, f"gtFine/{split}", ending, (".png",), say=False)
    keys = [name.removesuffix(_ENDING) for name in listing.names]
    unlabelled = [key for key in keys if key not in present]
    if unlabelled:
        raise FileNotFoundError(
            f"{len(unlabelled)} of {len(keys)} images have no label under {label_root}, the first"
            f" {label_root / label_path(unlabelled[0], split, label_format)}. Make the rest"
            " (python -m scripts.make_pseudo_labels continues where it stopped), or name the"
            " labelled images in a list."
        )
    files = [str(label_root / present[key]) for key in keys]
    labelled = listing.with_label_files(files, label_format)
    check_listing(labelled)
    return labelled


def label_record(label_root: Path, split: str) -> dict[str, Any]:
    """The record of scripts.make_pseudo_labels beside its labels; {} without one.

    Raises ValueError for a damaged one.
    """
    path = Path(label_root) / f"pseudo_labels-{split}.json"
    if not path.is_file():
        return {}
    try:
        record, found = json.loads(path.read_text(encoding="utf-8-sig")), "another content"
    except ValueError as error:
        record, found = None, f"no JSON ({error})"
    if not isinstance(record, dict):
        raise ValueError(
            f"{path} holds {found}. Expected the record of scripts.make_pseudo_labels, an object:"
            " make the labels again, or delete the file if they are of another origin."
        )
    return record


def _require_classes(label_root: Path, split: str, class_set: ClassSet) -> None:
    """Raises ValueError for pseudo-labels whose record names other classes."""
    classes = tuple(label_record(label_root, split).get("classes", class_set.names))
    if classes != class_set.names:
        raise ValueError(
            f"The pseudo-labels under {label_root} have the classes {', '.join(classes)}; this run"
            f" has {', '.join(class_set.names)} ({class_set.name}). Make them with a checkpoint of"
            " this class set, or give the run theirs."
        )
