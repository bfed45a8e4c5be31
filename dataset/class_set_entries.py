"""The entries of a class set file, checked: names, colors and encodings (class_set_file.py)."""

import colorsys
from collections.abc import Mapping
from typing import Any

from dataset.class_set import READS, REST, Encoding, color_key, value_text
from dataset.toml_file import refuse_unknown_keys

FEWEST, MOST = 2, 254


def class_names(content: Mapping[str, Any], origin: str) -> tuple[str, ...]:
    names = content.get("classes")
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(
            f'{origin} needs the names of its classes: classes = ["ground", "building"]; found'
            f" {names!r}."
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{origin} names the class {twice[0]!r} twice. Remove or rename one.")
    if not FEWEST <= len(names) <= MOST:
        remedy = (
            ' For one class of interest name the rest, too: classes = ["other", "road"].'
            if len(names) < FEWEST
            else " Merge the rarest."
        )
        raise ValueError(
            f"{origin} has {len(names)} classes; expected {FEWEST} to {MOST}, since 255 is kept for"
            f" what is ignored.{remedy}"
        )
    return tuple(names)


def class_colors(
    content: Mapping[str, Any], names: tuple[str, ...], origin: str
) -> tuple[tuple[int, int, int], ...]:
    """The colors of the file, or as many different ones. Raises ValueError."""
    if "colors" not in content:
        return _default_colors(len(names))
    given = content["colors"]
    if isinstance(given, Mapping):  # {class: color}
        missing = [name for name in names if name not in given]
        if missing or len(given) > len(names):
            other = missing or [name for name in given if name not in names]
            raise ValueError(
                f"{origin}: colors and classes differ, the first {other[0]!r}. Expected one color"
                " for each class."
            )
        given = [given[name] for name in names]
    if not isinstance(given, list) or len(given) != len(names):
        count = len(given) if isinstance(given, list) else repr(given)
        raise ValueError(
            f"{origin} has {len(names)} classes and {count} colors. Expected one [red, green, blue]"
            " for each class, or no colors at all."
        )
    colors = tuple(_color(color, origin) for color in given)
    for position, color in enumerate(colors):
        if color in colors[:position]:
            other = names[colors.index(color)]
            raise ValueError(
                f"{origin}: {other!r} and {names[position]!r} both have the color {list(color)}:"
                " pictures and labels could not tell them apart. Change one."
            )
    return colors


def _color(color: Any, origin: str) -> tuple[int, int, int]:
    if (
        not isinstance(color, list | tuple)
        or len(color) != 3
        or not all(type(part) is int and 0 <= part <= 255 for part in color)
    ):
        raise ValueError(
            f"{origin}: expected a color [red, green, blue] of 0-255, found {color!r}."
        )
    return tuple(color)


def _default_colors(count: int) -> tuple[tuple[int, int, int], ...]:
    """``count`` different colors: hues apart by the golden ratio, in three brightnesses."""
    colors: list[tuple[int, int, int]] = []
    number = 0
    while len(colors) < count:
        hue, value = (number * 0.618034) % 1, (0.9, 0.65, 0.45)[number % 3]
        color = tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.75, value))
        if color not in colors:
            colors.append(color)
        number += 1
    return tuple(colors)


def encoding_of(section: Any, names: tuple[str, ...], origin: str) -> Encoding:
    """The encoding of a section of the file. Raises ValueError."""
    if not isinstance(section, Mapping):
        raise ValueError(f"{origin}: expected read, classes and ignored, found {section!r}.")
    refuse_unknown_keys(section, {"read", "classes", "ignored", "source"}, origin)
    read = section.get("read")
    if not isinstance(read, str) or read not in READS:
        kinds = "; ".join(f"{key} ({text})" for key, text in READS.items())
        raise ValueError(f"{origin}: read is {read!r}; expected one of {kinds}.")
    table = section.get("classes")
    if not isinstance(table, Mapping) or not table:
        raise ValueError(f"{origin}: expected classes = {{name = value, ...}}, found {table!r}.")
    unknown = [name for name in table if name not in names]
    if unknown:
        raise ValueError(
            f"{origin} has a value for {unknown[0]!r}, which is none of the classes"
            f" {', '.join(names)}. Correct the name, or put the value into ignored."
        )
    classes = {name: _values(values, read, origin) for name, values in table.items()}
    classes = {name: values for name, values in classes.items() if values}
    if not classes:
        raise ValueError(
            f"{origin} gives a value to no class. Expected classes = {{name = value}}."
        )
    ignored = section.get("ignored", [])
    if ignored != REST:
        ignored = () if ignored == [] else _values(ignored, read, origin)
    _refuse_overlap(classes, () if ignored == REST else ignored, read, origin)
    return Encoding(read, classes, ignored)


def _values(values: Any, read: str, origin: str) -> tuple[int, ...]:
    """One value or several, as integers. Raises ValueError."""
    if read == "color":
        is_one = isinstance(values, list) and values and isinstance(values[0], int)
        colors = [values] if is_one else values
        if not isinstance(colors, list):
            raise ValueError(f"{origin}: expected colors [red, green, blue], found {values!r}.")
        return tuple(color_key(_color(color, origin)) for color in colors)
    numbers = [values] if isinstance(values, int) else values
    most = 255 if read == "cityscapes" else 65535
    if not isinstance(numbers, list) or not all(
        type(number) is int and 0 <= number <= most for number in numbers
    ):
        raise ValueError(f"{origin}: expected values of 0-{most}, found {values!r}.")
    return tuple(numbers)


def _refuse_overlap(
    classes: dict[str, tuple[int, ...]], ignored: tuple[int, ...], read: str, origin: str
) -> None:
    owner: dict[int, str] = {}
    for name, values in [*classes.items(), ("ignored", ignored)]:
        for value in values:
            text = f"{origin}: the value {value_text(value, read)}"
            if owner.get(value) == name:
                raise ValueError(f"{text} stands twice in {name!r}. Remove one.")
            if value in owner:
                raise ValueError(
                    f"{text} is both {owner[value]!r} and {name!r}. Give it to one of them."
                )
            owner[value] = name
