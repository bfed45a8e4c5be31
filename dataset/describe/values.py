"""Counts the values in label files, whatever they mean, and tells which encodings name them all."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dataset.class_set import ClassSet, value_text
from dataset.label_format import LabelFormat, label_values
from dataset.label_io import decode_label, is_synthia_label, read_label
from dataset.labels import IGNORE_INDEX, color_keys

_MOST_FIRST_CHANNEL, _MANY_COLORS = 64, 256
"""A color PNG with more colors, but at most so many values of red, has its classes in red alone."""


@dataclass
class LabelValues:
    """The values of several label files, read in one way.

    ``read``: a key of READS. ``pixels``, ``files``: {value: pixels; numbers of the label files that
    hold it}. ``first``: {value: the first of these}. ``palette``: {index: RGB}, where all files
    have one.
    """

    read: str
    count: int = 0
    pixels: Counter[int] = field(default_factory=Counter)
    files: dict[int, set[int]] = field(default_factory=dict)
    first: dict[int, Path] = field(default_factory=dict)
    palette: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    def add(self, values: np.ndarray, path: Path) -> None:
        """Counts the values (H, W) of one file."""
        if values.dtype == np.int32:  # colors
            found, counts = np.unique(values, return_counts=True)
        else:
            all_counts = np.bincount(values.ravel())
            found = np.flatnonzero(all_counts)
            counts = all_counts[found]
        for value, count in zip(found.tolist(), counts.tolist(), strict=True):
            self.pixels[value] += count
            self.files.setdefault(value, set()).add(self.count)
            self.first.setdefault(value, path)
        self.count += 1

    def share(self, value: int) -> float:
        """Fraction of the pixels with ``value``."""
        return self.pixels[value] / max(1, self.pixels.total())

    def name(self, value: int) -> str:
        """A value as users know it: a number, or "RGB (r, g, b)"."""
        return value_text(value, self.read)


def natural_read(path: Path) -> str:
    """How a label file looks like being read: a key of READS, never "cityscapes".

    Raises FileNotFoundError, or ValueError for a file that is no sound PNG.
    """
    image = decode_label(path)
    if is_synthia_label(path):
        return "first-channel"
    if image.mode in ("P", "L", "1") or image.mode.startswith("I"):
        return "index"
    channels = np.asarray(image)[..., : 1 if image.mode == "LA" else 3]
    if (channels == channels[..., :1]).all():
        return "index"
    red = channels[..., 0]
    if not channels[..., 1:].any():
        return "first-channel"
    colors = np.unique(color_keys(channels))
    many = len(colors) > _MANY_COLORS and len(np.unique(red)) <= _MOST_FIRST_CHANNEL
    return "first-channel" if many else "color"


def count_values(paths: Sequence[Path]) -> LabelValues:
    """The values in label files, read in the way that suits all of them.

    Raises FileNotFoundError, or ValueError for a file that is no sound PNG.
    """
    reads = {natural_read(path) for path in paths}
    # Grey files among color ones are labels of few classes: read as colors, too.
    values = LabelValues(next(r for r in ("color", "first-channel", "index") if r in reads))
    palettes: list[dict[int, tuple[int, int, int]]] = []
    for path in paths:
        values.add(label_values(path, values.read), path)
        if values.read == "index":
            palettes.append(_palette(path))
    if palettes and all(palette == palettes[0] for palette in palettes):
        values.palette = palettes[0]
    return values


def count_as(label_format: LabelFormat, paths: Sequence[Path]) -> LabelValues:
    """The values that ``label_format.read`` returns, and labelIds that it does not name.

    Raises what it raises for other values.
    """
    holds_label_ids = label_format.holds_label_ids
    values = LabelValues(label_format.rule.read if holds_label_ids else "index")
    read = read_label if holds_label_ids else label_format.read
    for path in paths:
        values.add(read(path), path)
    return values


def _palette(path: Path) -> dict[int, tuple[int, int, int]]:
    image = decode_label(path)
    if image.mode != "P":
        return {}
    flat = image.getpalette("RGB") or []
    return {i: tuple(flat[3 * i : 3 * i + 3]) for i in range(len(flat) // 3)}


def encoding_faults(class_set: ClassSet, paths: Sequence[Path]) -> dict[str, str | None]:
    """{encoding: what it lacks for the labels ``paths``, or None where it names all values}."""
    faults: dict[str, str | None] = {}
    for name in class_set.encodings:
        label_format = LabelFormat(class_set, name)
        has_class = False
        try:
            for path in paths:
                values = np.unique(label_format.read_train_ids(path))
                has_class = has_class or bool((values != IGNORE_INDEX).any())
        except ValueError as error:
            faults[name] = str(error)
            continue
        lacks = f"[encodings.{name}] of {class_set.name} ignores all pixels"
        faults[name] = None if has_class else lacks
    return faults
