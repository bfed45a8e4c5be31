"""Ground truth beside images: the label file of each, found by its name."""

import itertools
from collections import defaultdict
from pathlib import Path

import numpy as np

from dataset.class_set import ClassSet
from dataset.find import LeftOut, walk
from dataset.label_format import LabelFormat, fitting_format, prediction_format


def find_labels(folder: Path, images: list[Path]) -> dict[Path, Path]:
    """{image: its label below ``folder``}. Raises ValueError where no image has one."""
    by_name = labels_by_name(folder)
    labels = {image: label_of(image, by_name) for image in images}
    found = {image: label for image, label in labels.items() if label is not None}
    if not found:
        raise ValueError(
            f"No labels below {folder} for these images. Expected NAME_gtFine_labelIds.png for"
            " NAME_leftImg8bit.png, else equal names."
        )
    return found


def labels_by_name(folder: Path) -> dict[str, list[Path]]:
    """{name without suffix: files} of the PNGs below a folder, found like data sets."""
    left_out, labels = LeftOut(), defaultdict(list)
    for file in walk(folder, left_out).files:
        path = folder.absolute() / file
        if path.suffix.lower() == ".png":
            labels[path.stem].append(path)
    left_out.say(folder)
    return labels


def label_of(image: Path, labels: dict[str, list[Path]]) -> Path | None:
    """The label of an image by its name; of equal names, the one in folders of equal names.

    Raises ValueError when several labels fit equally well.
    """
    found = labels.get(image.stem.replace("_leftImg8bit", "_gtFine_labelIds"), [])
    folders = image.absolute().parts[-2::-1]

    def fit(label: Path) -> int:
        pairs = zip(folders, label.parts[-2::-1], strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

    best = [label for label in found if fit(label) == max(map(fit, found))]
    if len(best) > 1:
        raise ValueError(
            f"{best[0]} and {best[1]} can both be the label of {image}. Give the folder of the"
            " right one as --labels."
        )
    return best[0] if best else None


def format_of_labels(class_set: ClassSet, labels: list[Path], folder: Path) -> LabelFormat:
    """How all ``labels`` are read: one alone may fit several encodings.

    Raises ValueError where no encoding of ``class_set``, or more than one, fits them.
    """
    label_format = prediction_format(class_set)
    if label_format.holds_label_ids:
        return label_format
    return fitting_format(class_set, labels, folder)


def draw_label(path: Path | None, image: np.ndarray, label_format: LabelFormat) -> np.ndarray:
    """Class colors of a label file, (H, W, 3) uint8; white of the size of ``image`` for None."""
    if path is None:
        return np.full_like(image, 255)
    return label_format.class_set.color_table[label_format.read_train_ids(path)]
