"""Class sets and layouts to start from, as TOML texts, for data that no built-in one fits."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dataset.class_set import ClassSet, color_of
from dataset.class_set_entries import MOST
from dataset.class_set_file import class_set_of
from dataset.describe.values import LabelValues

CLASS_SET_FILE, LAYOUT_FILE = "classes.toml", "layout.toml"
_RARELY, _BLACK = 0.2, 0
"""Black on a smaller part of the pixels is taken for what is ignored, in labels of colors."""


class SuggestedSplit(NamedTuple):
    """Patterns of one split of a layout, with the numbers of files that they match."""

    images: str
    labels: str | None
    count: int


def suggested_class_set(values: LabelValues) -> str | None:
    """A class set of one class for each value that was found, as TOML.

    None where there are fewer than two values, or more than a class set can have.
    """
    ignored = [value for value in sorted(values.pixels) if _is_ignored(value, values)]
    kept = [value for value in sorted(values.pixels) if value not in ignored]
    if not 2 <= len(kept) <= MOST:
        return None
    names = _names(kept, values)
    colors = _colors(kept, values)
    lines = [
        f"# {len(kept)} values of {values.count} labels: rename the classes, merge values as in"
        " [1, 2],",
        "# and move what is no class to ignored.",
        f"classes = {_array(names)}",
    ]
    if colors:
        lines += ["", "[colors]"]
        lines += [
            f"{_key(name)} = {list(color)}" for name, color in zip(names, colors, strict=True)
        ]
    lines += ["", "[encodings.labels]", f'read = "{values.read}"']
    for value in ignored:  # at most one
        text = _value(value, values)
        lines.append(f"ignored = {text if values.read == 'color' else f'[{text}]'}")
        lines[-1] += f" # {_found(value, values)}"
    lines += ["", "[encodings.labels.classes]"]
    for name, value in zip(names, kept, strict=True):
        lines.append(f"{_key(name)} = {_value(value, values)} # {_found(value, values)}")
    return "\n".join(lines) + "\n"


def class_set_from(text: str) -> ClassSet:
    """The class set of a suggested text."""
    return class_set_of(tomllib.loads(text), "classes", CLASS_SET_FILE)


def suggested_layout(splits: Mapping[str, SuggestedSplit], has_classes: bool) -> str:
    """A layout with patterns of ``splits``, as TOML; ``has_classes``: with a class set beside."""
    lines = ["# {key} is what an image and its label have in common, folders included.", ""]
    if has_classes:
        lines += [f'class_set = "{CLASS_SET_FILE}"', ""]
    for name, split in splits.items():
        lines += [f"[splits.{_key(name)}]", f"images = {_text(split.images)}"]
        lines += [f"labels = {_text(split.labels)}"] if split.labels else []
        lines += [f"count = {split.count}", ""]
    return "\n".join(lines)


def _is_ignored(value: int, values: LabelValues) -> bool:
    """Whether a value is probably no class: 255 of several indices, rare black among colors."""
    if values.read == "color":
        return value == _BLACK and values.share(value) < _RARELY and len(values.pixels) > 3
    return value == 255 and len(values.pixels) > 2


def _names(kept: Sequence[int], values: LabelValues) -> list[str]:
    if values.read == "index" and set(values.pixels) == {0, 255}:
        return ["background", "foreground"]
    if values.read == "color":
        return [f"class {number}" for number in range(len(kept))]
    return [f"class {value}" for value in kept]


def _colors(kept: Sequence[int], values: LabelValues) -> list[tuple[int, int, int]] | None:
    """Colors that the labels themselves have, if they are different ones."""
    if values.read == "color":
        return [color_of(value) for value in kept]
    colors = [values.palette.get(value) for value in kept]
    if None in colors or len(set(colors)) < len(colors):
        return None
    is_grey = all(color == (value,) * 3 for color, value in zip(colors, kept, strict=True))
    return None if is_grey else colors


def _found(value: int, values: LabelValues) -> str:
    share = f"{100 * values.share(value):.3g} % of the pixels"
    return f"{share}, in {len(values.files[value])} of {values.count} labels"


def _value(value: int, values: LabelValues) -> str:
    return str(value) if values.read != "color" else f"[{list(color_of(value))}]"


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a basic string of TOML is one of JSON


def _array(names: Sequence[str]) -> str:
    if len(names) <= 6:
        return f"[{', '.join(map(_text, names))}]"
    return "[\n" + "".join(f"    {_text(name)},\n" for name in names) + "]"


def _key(name: str) -> str:
    bare = name.replace("-", "").replace("_", "")
    return name if bare.isascii() and bare.isalnum() else _text(name)
