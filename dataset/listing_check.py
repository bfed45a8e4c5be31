"""Checks of a listing before a run, so that no fault stops it in the middle."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from dataset.class_set import UNKNOWN
from dataset.evenly import evenly
from dataset.image_io import image_size
from dataset.label_format import CITYSCAPES_LABELS, LabelFormat
from dataset.label_io import label_size
from dataset.labels import (
    IGNORE_INDEX,
    LAST_LABEL_ID,
    NUM_CLASSES,
    TRAIN_ID_OF,
    looks_like_idd_ids,
    looks_like_train_ids,
)
from dataset.listing import Frame, ImageList


class NoLabelledPixelError(ValueError):
    """Labels that ignore every pixel: there is nothing to learn, and nothing to score."""


def check_listing(listing: ImageList, samples: int = 16) -> None:
    """Checks a listing before a run, so that no fault stops it in the middle.

    Reads the header of every file, and ``samples`` evenly spaced labels: pairs have equal sizes,
    labels hold values of their encoding, and some class. Every pair of a prepared root was checked
    already: only its stored values are read, unless its labels are of another root. Raises
    ValueError or FileNotFoundError; of ValueErrors NoLabelledPixelError for labels without class.
    """
    # Images alone.
    if not listing.has_labels:
        if listing.statistics is None:
            _require_images(listing)
        return
    label_format, statistics = listing.label_format, listing.statistics

    # A prepared root that holds labelIds, then one that holds trainIds.
    if statistics is not None and statistics.values is not None:
        values = values_of(int(np.bitwise_or.reduce(statistics.values)))
        is_default = label_format.class_set == CITYSCAPES_LABELS.class_set
        is_counted = is_default and statistics.classes is not None
        pixels = statistics.classes.sum(0) if is_counted else None
        refuse_label_values(values, listing.root, label_format, pixels)
        _refuse_unnamed(values, listing.root, label_format)
        return
    if statistics is not None and statistics.classes is not None:
        present = set(np.flatnonzero(statistics.classes[:, :-1].sum(0)).tolist())
        refuse_label_values(present or {IGNORE_INDEX}, listing.root, label_format)
        return

    # A raw root, or labels of another root: sizes of all pairs, values of some labels.
    _require_equal_sizes(listing)
    label = listing[0].label
    place = listing.root if label.is_relative_to(listing.root) else label.parent
    counts = np.zeros(256, np.int64)
    for frame in evenly(listing, samples):
        counts += np.bincount(label_format.read(frame.label).ravel(), minlength=256)
    values = set(np.flatnonzero(counts).tolist())
    pixels = np.bincount(np.minimum(TRAIN_ID_OF, NUM_CLASSES), counts, NUM_CLASSES + 1)
    for frame in listing:  # a class may be in one label of thousands
        if has_class(values, label_format):
            break
        values.update(np.unique(label_format.read(frame.label)).tolist())
    # Shares tell nothing of pseudo-labels, which lie elsewhere and are mostly ignored.
    refuse_label_values(values, place, label_format, pixels if place == listing.root else None)


def _require_images(listing: ImageList) -> None:
    """Raises ValueError when files are missing or no images, by their headers."""

    def fault(frame: Frame) -> str | None:
        try:
            image_size(frame.image)
        except (OSError, ValueError) as error:
            return str(error)
        return None

    with ThreadPoolExecutor(16) as pool:
        faults = [text for text in pool.map(fault, listing) if text is not None]
    if faults:
        more = f" {len(faults)} of {len(listing)} images cannot be read." if faults[1:] else ""
        raise ValueError(f"{faults[0]}{more}")


def _require_equal_sizes(listing: ImageList) -> None:
    """Raises ValueError when an image and its label differ in size, by the headers of the files."""
    frames = list(listing)
    with ThreadPoolExecutor(16) as pool:
        image_sizes = pool.map(image_size, [frame.image for frame in frames])
        label_sizes = pool.map(label_size, [frame.label for frame in frames])
        triples = list(zip(frames, image_sizes, label_sizes, strict=True))
    unequal = [(frame, image, label) for frame, image, label in triples if image != label]
    if unequal:
        frame, image, label = unequal[0]
        names = ", ".join(frame.name for frame, _, _ in unequal[:20])
        raise ValueError(
            f"{len(unequal)} of {len(frames)} pairs have an image and a label of different sizes,"
            f" the first {frame.image} {image} and {frame.label} {label} (height, width). Remove"
            f" these pairs ({names}{', ...' if unequal[20:] else ''}), or let scripts.prepare leave"
            " them out: --check names all, --output makes a copy without them."
        )


def mask_of(values: Iterable[int]) -> int:
    """Label values as the bits of one integer: bit v for labelId v, bit 63 for 255."""
    return sum(1 << (63 if value == IGNORE_INDEX else value) for value in set(values))


def values_of(mask: int) -> set[int]:
    """The inverse of ``mask_of``."""
    return {value for value in (*range(LAST_LABEL_ID + 1), IGNORE_INDEX) if mask & mask_of([value])}


def has_class(values: Iterable[int], label_format: LabelFormat = CITYSCAPES_LABELS) -> bool:
    """Whether label ``values``, as ``label_format`` reads them, contain a class."""
    train_ids = {int(label_format.train_id_of[value]) for value in values}
    return bool(train_ids - {IGNORE_INDEX, UNKNOWN})


def _refuse_unnamed(values: set[int], root: Path, label_format: LabelFormat) -> None:
    """Raises ValueError for labelIds of a prepared root that the class set does not name."""
    unnamed = sorted(value for value in values if label_format.train_id_of[value] == UNKNOWN)
    if unnamed:
        raise ValueError(
            f"The labels under {root} have values that [encodings.{label_format.encoding}] of"
            f" {label_format.class_set.name} does not name: {', '.join(map(str, unnamed))}. Add"
            " them to a class or to ignored."
        )


def refuse_label_values(
    values: set[int],
    root: Path,
    label_format: LabelFormat = CITYSCAPES_LABELS,
    pixels: np.ndarray | None = None,
) -> None:
    """Raises ValueError when the ``values`` of many labels are other ids, or teach nothing.

    ``pixels`` (20,): of each of Cityscapes' 19 trainIds, then of none; None: not known.
    """
    if not label_format.holds_label_ids:
        if values and not has_class(values, label_format):
            raise NoLabelledPixelError(
                f"The labels under {root} hold no class: all their pixels are ignored by"
                f" [encodings.{label_format.encoding}] of {label_format.class_set.name}. Correct"
                " this encoding, or choose another class set."
            )
        return
    if looks_like_train_ids(values):
        raise ValueError(
            f"The labels under {root} hold the values {sorted(values)}: these are trainIds,"
            " labelIds (0-34) are expected. Use the *_gtFine_labelIds.png files of Cityscapes, or"
            " the original label PNGs of GTA5. Of data sets that have trainIds only (BDD100K), save"
            " LABEL_ID_OF[label], see dataset/labels.py. If these are labelIds, and 255 marks what"
            " is ignored, save 0 in its place."
        )
    if looks_like_idd_ids(values, pixels):
        raise ValueError(
            f"The labels under {root} hold the values {sorted(values)}: they look like IDD's own"
            " ids or level3Ids, where 0 is road. Expected Cityscapes' labelIds (7 is road): make"
            " IDD's csIds with its own tools (createLabels.py --id-type csId), and name them"
            " *_gtFine_labelIds.png."
        )
    if values and not has_class(values, label_format):
        text = (
            f"The labels under {root} hold no class, only the values {sorted(values)}, which are"
            " all ignored: there is nothing to learn or to score. Expected labelIds such as 7"
            " (road); see dataset/labels.py."
        )
        if IGNORE_INDEX in values:
            mask = " They look like masks of one class: save its labelId, such as 7 for road."
            raise ValueError(text + mask)
        raise NoLabelledPixelError(text)
