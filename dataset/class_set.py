"""Class sets: the classes that a network learns, and the values that label files give them.

A class is known by its position in ``ClassSet.names``, here called trainId; 255 is ignored. Class
sets are read by dataset/class_set_file.py.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from dataset.labels import IGNORE_INDEX

UNKNOWN = 254
"""In a table of values: a value that the encoding does not name."""
READS = {
    "cityscapes": "labelIds of Cityscapes, GTA5 and SYNTHIA, as indices or as colors",
    "index": "the value of a gray pixel, or the index of a palette",
    "color": "the RGB color, also that of a palette",
    "first-channel": "the first channel of several, of 8 or 16 bits",
}
"""How a pixel of a label file becomes a value."""
REST = "rest"


def color_key(color: Iterable[int]) -> int:
    """An RGB color as one integer, 0xRRGGBB."""
    red, green, blue = color
    return red << 16 | green << 8 | blue


def color_of(key: int) -> tuple[int, int, int]:
    """The RGB color of a ``color_key``."""
    return key >> 16, key >> 8 & 255, key & 255


@dataclass(frozen=True)
class Encoding:
    """How the label files of one kind name the classes.

    ``read``: a key of READS. ``classes``: {class name: values}. ``ignored``: values that are no
    class, or "rest": all that ``classes`` does not hold. A color is the value ``color_key``.
    """

    read: str
    classes: dict[str, tuple[int, ...]]
    ignored: tuple[int, ...] | str = ()

    def class_values(self) -> set[int]:
        """All values of classes."""
        return {value for values in self.classes.values() for value in values}

    def values(self) -> set[int]:
        """All values that are named: those of classes, and ignored ones."""
        named = self.class_values()
        return named if self.ignored == REST else named | set(self.ignored)


@dataclass(frozen=True)
class ClassSet:
    """Names, colors and encodings of the classes; the position in ``names`` is the trainId.

    ``colors``: RGB. ``encodings``: {name: Encoding}.
    """

    name: str
    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    encodings: dict[str, Encoding] = field(default_factory=dict, compare=False)

    def __len__(self) -> int:
        """Number of classes."""
        return len(self.names)

    @cached_property
    def color_table(self) -> np.ndarray:
        """(256, 3) uint8 RGB: the color of each trainId; 255 is black."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self)] = self.colors
        table.setflags(write=False)
        return table

    def table(self, encoding: str) -> np.ndarray:
        """(n,) uint8: value -> trainId, 255 for ignored values and UNKNOWN for unnamed ones.

        Not for encodings in colors, see ``named_values``. n is 256, or 65,536 for 16 bits.
        """
        rule = self.encodings[encoding]
        is_small = rule.read == "cityscapes" or max(rule.values(), default=0) < 256
        size = 256 if is_small else 65536
        table = np.full(size, IGNORE_INDEX if rule.ignored == REST else UNKNOWN, np.uint8)
        if rule.ignored != REST:
            table[list(rule.ignored)] = IGNORE_INDEX
        for train_id, name in enumerate(self.names):
            table[list(rule.classes.get(name, ()))] = train_id
        table.setflags(write=False)
        return table

    def named_values(self, encoding: str) -> dict[int, int]:
        """{value: trainId, or 255 for an ignored one}; a color is the value ``color_key``."""
        rule = self.encodings[encoding]
        found = {} if rule.ignored == REST else dict.fromkeys(rule.ignored, IGNORE_INDEX)
        for train_id, name in enumerate(self.names):
            found |= dict.fromkeys(rule.classes.get(name, ()), train_id)
        return found

    def meaning(self, encoding: str) -> tuple[str, bool, dict[int, int]]:
        """What decides the trainIds that a label file becomes.

        How its pixels are read, whether values that are not named are ignored, ``named_values``.
        """
        rule = self.encodings[encoding]
        return rule.read, rule.ignored == REST, self.named_values(encoding)

    def as_dict(self) -> dict[str, Any]:
        """The whole class set as plain values, for a checkpoint."""
        return {
            "name": self.name,
            "classes": list(self.names),
            "colors": [list(color) for color in self.colors],
            "encodings": {
                name: {
                    "read": rule.read,
                    "ignored": _plain(rule.ignored, rule.read),
                    "classes": {
                        key: _plain(values, rule.read) for key, values in rule.classes.items()
                    },
                }
                for name, rule in self.encodings.items()
            },
        }

    def train_ids(self, names: Iterable[str]) -> tuple[int, ...]:
        """The sorted trainIds of class ``names``. Raises ValueError for an unknown one."""
        names = list(names)
        unknown = [name for name in names if name not in self.names]
        if unknown:
            near = difflib.get_close_matches(unknown[0], self.names, 1, 0)
            raise ValueError(
                f"Unknown class {unknown[0]!r} (nearest: {near[0]!r}). The classes of {self.name}"
                f" are: {', '.join(self.names)} (quote names with a space)."
            )
        return tuple(sorted({self.names.index(name) for name in names}))


def _plain(values: tuple[int, ...] | str, read: str) -> list | str:
    """Values as a file has them: numbers, or colors [red, green, blue]."""
    if values == REST:
        return values
    if read != "color":
        return list(values)
    return [list(color_of(value)) for value in values]


def value_text(value: int, read: str) -> str:
    """A value as users know it: a number, or "RGB (r, g, b)"."""
    return str(value) if read != "color" else f"RGB {color_of(value)}"
