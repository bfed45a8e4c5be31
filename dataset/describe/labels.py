"""What labels hold: their values, and the encodings that fit."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dataset.class_set import REST, UNKNOWN, ClassSet
from dataset.class_set_file import builtin_names, load_class_set
from dataset.describe.suggest import class_set_from, suggested_class_set
from dataset.describe.values import (
    LabelValues,
    count_as,
    count_values,
    encoding_faults,
    natural_read,
)
from dataset.evenly import evenly
from dataset.label_format import CITYSCAPES_LABELS, LabelFormat, train_id_format
from dataset.labels import IGNORE_INDEX
from dataset.layout import raw_label_format, refuse_unknown_encoding
from dataset.layout_file import Layout
from dataset.listing import ImageList
from dataset.listing_check import refuse_label_values

_FIT_FILES = 20
"""Labels that are read to see which encodings fit."""


@dataclass(frozen=True)
class Labels:
    """What labels hold.

    ``files``: those that were read, of ``total``. ``values``: as found. ``label_format``: how they
    are read; None where no encoding of ``class_set`` fits, ``fault`` says why. ``others``: other
    encodings of the class set that fit. ``builtin``: encodings of built-in class sets that name all
    values, as texts. ``shown``: how pictures show labels: ``label_format``, or a class for each
    value. ``suggestion``: a class set to start from. ``broken``: what is wrong with other files.
    """

    files: list[Path]
    total: int
    values: LabelValues
    class_set: ClassSet | None
    label_format: LabelFormat | None
    fault: str
    others: list[str]
    builtin: list[str]
    shown: LabelFormat | None
    suggestion: str | None
    broken: list[str] = field(default_factory=list)

    def class_of(self, value: int) -> int:
        """trainId of a value as it was found; 255 for an ignored, UNKNOWN for an unnamed one."""
        return UNKNOWN if self.shown is None else class_of(self.shown, value)

    def per_class(self) -> tuple[np.ndarray, np.ndarray]:
        """(256,) pixels of each trainId; (256,) number of labels that hold it."""
        pixels, files = np.zeros(256, np.int64), [set() for _ in range(256)]
        for value, count in self.values.pixels.items():
            train_id = self.class_of(value)
            pixels[train_id] += count
            files[train_id] |= self.values.files[value]
        return pixels, np.array(list(map(len, files)))

    def unnamed(self) -> list[int]:
        """Values that no class names, the most frequent first."""
        found = [v for v in self.values.pixels if self.class_of(v) == UNKNOWN]
        return sorted(found, key=lambda value: -self.values.pixels[value])


def class_of(label_format: LabelFormat, value: int) -> int:
    """trainId of a raw value, 255 where it is ignored, UNKNOWN where the encoding lacks it."""
    class_set, rule = label_format.class_set, label_format.rule
    missing = IGNORE_INDEX if rule.ignored == REST else UNKNOWN
    if rule.read == "color":
        return class_set.named_values(label_format.encoding).get(value, missing)
    table = class_set.table(label_format.encoding)
    return int(table[value]) if value < len(table) else missing


def describe_labels(
    paths: Sequence[Path], most: int, root: Path, layout: Layout, class_set: ClassSet | None
) -> Labels:
    """Reads at most ``most`` labels of raw data, by the encoding with which training reads them.

    ``class_set``: None where neither the user nor a layout names one. Raises ValueError where no
    file is a label, and for an encoding of ``layout`` that its class set lacks.
    """
    files, broken = _sound_labels(evenly(paths, most))
    checked = evenly(files, _FIT_FILES)
    faults = {} if class_set is None else encoding_faults(class_set, checked)
    label_format, chosen, values, fault = None, None, count_values(files), ""
    if class_set is not None:
        refuse_unknown_encoding(layout, class_set)  # a fault of the layout, not of the labels
        try:
            label_format = raw_label_format(layout, checked, root, class_set)
        except ValueError as error:
            fault = str(error)
    if label_format is not None:
        chosen = label_format.encoding
        values, fault = _read_with(label_format, files, values, faults[chosen] or "")
    suggestion = suggested_class_set(values)
    shown = label_format
    if fault and label_format is not None and _is_unusable(label_format, values):
        label_format = shown = None
    if shown is None and suggestion is not None:
        shown = LabelFormat(class_set_from(suggestion), "labels")
    return Labels(
        files,
        len(paths),
        values,
        class_set,
        label_format,
        fault,
        [name for name, lacks in faults.items() if lacks is None and name != chosen],
        _builtin_fits(values, checked),
        shown,
        suggestion,
        broken,
    )


def describe_prepared_labels(listing: ImageList, most: int) -> Labels:
    """Reads at most ``most`` labels of a prepared root."""
    files = [frame.label for frame in evenly(listing, most)]
    label_format = listing.label_format
    values = count_as(label_format, files)
    shown = label_format
    if not label_format.holds_label_ids:  # files hold trainIds, whatever the raw ones held
        shown = train_id_format(label_format.class_set)
    return Labels(
        files, len(listing), values, listing.class_set, label_format, "", [], [], shown, None
    )


def _sound_labels(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The files that can be read as labels, and what is wrong with the others."""
    sound, broken = [], []
    for path in paths:
        try:
            natural_read(path)
        except (OSError, ValueError) as error:
            broken.append(str(error))
        else:
            sound.append(path)
    if not sound:
        raise ValueError(f"None of {len(paths)} labels can be read. The first: {broken[0]}")
    return sound, broken


def _read_with(
    label_format: LabelFormat, files: Sequence[Path], natural: LabelValues, fault: str
) -> tuple[LabelValues, str]:
    """The values as an encoding reads them, and what is wrong; ``natural`` where it cannot."""
    rule = label_format.rule
    try:
        if label_format.holds_label_ids:
            values = count_as(label_format, files)
            refuse_label_values(set(values.pixels), files[0].parent, label_format)
            return values, fault
        if rule.read == natural.read and label_format.white == 1:
            return natural, fault
        values = LabelValues(rule.read)
        for path in files:
            values.add(label_format.values(path), path)
    except ValueError as error:
        return natural, fault or str(error)
    return values, fault


def _is_unusable(label_format: LabelFormat, values: LabelValues) -> bool:
    """Whether no value that was found is a class: the labels are of another kind."""
    if label_format.rule.read != values.read:
        return True
    classes = {class_of(label_format, value) for value in values.pixels}
    return not classes - {UNKNOWN, IGNORE_INDEX}


def _builtin_fits(values: LabelValues, files: Sequence[Path]) -> list[str]:
    """Encodings of the built-in class sets that name all values, best first, as texts."""
    found: list[tuple[int, float, str]] = []

    def add(label_format: LabelFormat, found_values: Sequence[int]) -> None:
        class_set = label_format.class_set
        classes = {class_of(label_format, value) for value in found_values}
        present = len(classes - {IGNORE_INDEX})
        if UNKNOWN not in classes and present:
            text = f"{present} of {len(class_set)} classes of {class_set.name}"
            found.append((present, present / len(class_set), f"{text} [{label_format.encoding}]"))

    for name in builtin_names():
        class_set = load_class_set(name)
        for encoding, rule in class_set.encodings.items():
            if rule.read == values.read and rule.ignored != REST:
                add(LabelFormat(class_set, encoding), list(values.pixels))
    try:
        label_ids = set(count_as(CITYSCAPES_LABELS, files).pixels)
        refuse_label_values(label_ids, files[0].parent)
    except ValueError:
        label_ids = set()
    if values.read != "cityscapes":
        add(CITYSCAPES_LABELS, sorted(label_ids))
    return [text for *_, text in sorted(found, key=lambda fit: fit[:2], reverse=True)]
