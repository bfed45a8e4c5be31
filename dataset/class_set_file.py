"""Class set files: TOML files that name the classes, and their values in label files.

``class_sets/`` has the built-in ones. The shortest::

    classes = ["ground", "building", "tree"]
    [encodings.ids]
    read = "index"
    ignored = [0]
    classes = {ground = 1, building = [2, 3], tree = 4}

Or it merges classes of another set, whose encodings it takes over::

    based_on = "cityscapes19"
    classes = ["flat", "object", "vehicle"]
    ignored = ["sky"]
    [merge]
    flat = ["road", "sidewalk"]
    ...

The position of a class in ``classes`` is its trainId.
"""

import colorsys
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataset.class_set import READS, REST, ClassSet, Encoding, color_key, value_text
from dataset.toml_file import read_toml

FOLDER = Path(__file__).with_name("class_sets")
DEFAULT = "cityscapes19"
FEWEST, MOST = 2, 254
_KEYS = {
    *("name", "title", "source", "classes", "colors", "encodings"),
    *("based_on", "merge", "ignored"),
}


def builtin_names() -> list[str]:
    """The names of the built-in class sets."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_class_set(word: str | Path) -> ClassSet:
    """A built-in class set by its name, or one from a TOML file.

    Raises FileNotFoundError for neither, ValueError for a file that is no sound class set.
    """
    return _load(word, ())


def _load(word: str | Path, based: tuple[Path, ...]) -> ClassSet:
    """See ``load_class_set``; ``based``: the files that are based on it. Raises ValueError."""
    path, content = read_toml(word, FOLDER, "class set")
    if path.resolve() in based:
        raise ValueError(
            f"{path} is based on itself{'' if len(based) == 1 else f', by {based[-1]}'}. Give"
            " based_on another class set."
        )
    return class_set_of(content, path.stem, str(path), (*based, path.resolve()))


def class_set_of(
    content: Mapping[str, Any], name: str, origin: str, based: tuple[Path, ...] = ()
) -> ClassSet:
    """The class set of a TOML file's, or a checkpoint's, ``content``.

    ``name``: where it has none; ``origin``: where it is from, for errors; ``based``: its file and
    those that are based on it. Raises ValueError, FileNotFoundError for a set that it is based on.
    """
    content = dict(content)
    _refuse_unknown_keys(content, _KEYS, origin)
    for key in ("name", "title", "source"):
        if not isinstance(content.get(key, ""), str):
            raise ValueError(f"{origin}: {key} is {content[key]!r}; expected a text.")
    name = content.get("name", name)
    if "based_on" in content:
        return _merged(content, name, origin, based)
    for key in ("merge", "ignored"):
        if key in content:
            raise ValueError(
                f"{origin}: {key} is of a class set that is based on another one. Add based_on ="
                " NAME, or move it into a section [encodings.NAME]."
            )
    names = _names(content, origin)
    colors = _colors(content, names, origin)
    sections = content.get("encodings")
    if not isinstance(sections, Mapping) or not sections:
        raise ValueError(
            f"{origin} says nothing of the values in label files. Expected a section such as"
            ' [encodings.ids] with read = "index" and classes = {name = value, ...}.'
        )
    encodings = {
        key: _encoding(section, names, f"{origin}, [encodings.{key}]")
        for key, section in sections.items()
    }
    return ClassSet(name, names, colors, encodings)


def recorded_class_set(metadata: Mapping[str, Any]) -> ClassSet:
    """The class set of a checkpoint or an exported file; cityscapes19 where it has none."""
    if "class_set" not in metadata:
        return load_class_set(DEFAULT)
    return class_set_of(metadata["class_set"], "recorded", f"the file of {metadata.get('name')!r}")


def common_class_set(recorded: Mapping[Path, Mapping[str, Any]]) -> ClassSet:
    """The class set that all of several files record. Raises ValueError where they differ.

    ``recorded``: {checkpoint or exported file: its metadata}.
    """
    class_sets = {path: recorded_class_set(metadata) for path, metadata in recorded.items()}
    first_path, first = next(iter(class_sets.items()))
    for path, other in class_sets.items():
        if other.names != first.names:
            raise ValueError(
                f"{first_path} has the classes of {first.name} ({', '.join(first.names)}),"
                f" {path} those of {other.name} ({', '.join(other.names)}): their scores"
                " cannot stand in one table. Score them one by one."
            )
    return first


def _refuse_unknown_keys(content: Mapping[str, Any], known: set[str], origin: str) -> None:
    unknown = sorted(set(content) - known)
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"{origin} has the key {unknown[0]!r}, which nothing reads; expected only"
            f" {', '.join(sorted(known))}.{hint}"
        )


def _names(content: Mapping[str, Any], origin: str) -> tuple[str, ...]:
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


def _colors(
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


def _encoding(section: Any, names: tuple[str, ...], origin: str) -> Encoding:
    """The encoding of a section of the file. Raises ValueError."""
    if not isinstance(section, Mapping):
        raise ValueError(f"{origin}: expected read, classes and ignored, found {section!r}.")
    _refuse_unknown_keys(section, {"read", "classes", "ignored", "source"}, origin)
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


def _merged(
    content: Mapping[str, Any], name: str, origin: str, based: tuple[Path, ...]
) -> ClassSet:
    """A class set that merges classes of another one. Raises ValueError, FileNotFoundError."""
    base = _load(beside(content["based_on"], origin), based)
    if "encodings" in content:
        raise ValueError(
            f"{origin}: encodings are those of {base.name}, on which it is based. Leave out"
            " [encodings], or based_on."
        )
    merge = content.get("merge")
    if not isinstance(merge, Mapping):
        raise ValueError(
            f"{origin} is based on {base.name} and does not say how. Expected a section [merge]"
            ' with lines such as flat = ["road", "sidewalk"].'
        )
    merge = {key: as_names(value, key, origin) for key, value in merge.items()}
    names = _names({"classes": content.get("classes", list(merge))}, origin)
    ignored = as_names(content.get("ignored", []), "ignored", origin)
    check_merge(base.names, names, merge, ignored, origin)
    merged = ClassSet(
        name,
        names,
        _colors(content, names, origin)
        if "colors" in content
        else tuple(base.colors[base.names.index(merge[key][0])] for key in names),
    )
    return replace(merged, encodings=merged_encodings(base, merge, ignored))


def as_names(value: Any, key: str, origin: str) -> list[str]:
    """One class name or several, as a list. Raises ValueError."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"{origin}: {key} is {value!r}; expected the name of a class, or a list of names."
        )
    return names


def beside(word: Any, origin: str) -> str | Path:
    """The file that a file names: relative to its own folder, or a built-in name.

    Raises ValueError for another value than a text.
    """
    if not isinstance(word, str):
        raise ValueError(
            f"{origin} names the class set {word!r}; expected the name of a built-in one, or a"
            " TOML file, in quotes."
        )
    beside = Path(origin).parent / word
    return beside if word not in builtin_names() and beside.is_file() else word


def check_merge(
    old: tuple[str, ...],
    new: tuple[str, ...],
    merge: Mapping[str, list[str]],
    ignored: list[str],
    origin: str,
) -> None:
    """Raises ValueError unless every ``old`` class goes to one ``new`` class, or is ``ignored``.

    ``merge``: {new class: old classes}.
    """
    taken: dict[str, str] = {}
    for key, members in [*merge.items(), ("ignored", ignored)]:
        for member in members:
            if member not in old:
                near = difflib.get_close_matches(str(member), old, 1, 0)
                raise ValueError(
                    f"{origin}: {key} takes {member!r}, which is no class of the set that is"
                    f" merged (nearest: {near[0]!r}); it has {', '.join(old)}."
                )
            if member in taken:
                raise ValueError(
                    f"{origin}: {member!r} goes to {taken[member]!r} and to {key!r}. Leave one out."
                )
            taken[member] = key
    nowhere = [name for name in old if name not in taken]
    if nowhere:
        raise ValueError(
            f"{origin} leaves {', '.join(map(repr, nowhere))} nowhere. Add each to a class in"
            " [merge], or to ignored = [...]."
        )
    empty = [name for name in new if not merge.get(name)]
    unknown = [name for name in merge if name not in new]
    if empty or unknown:
        raise ValueError(
            f"{origin}: classes and [merge] differ: {(empty or unknown)[0]!r} is in one of them"
            " only. Give every class at least one class to merge."
        )


def merged_encodings(
    base: ClassSet, merge: Mapping[str, list[str]], ignored: Iterable[str]
) -> dict[str, Encoding]:
    """The encodings of ``base`` with the values of merged classes, unless none is left."""

    def merged(rule: Encoding) -> Encoding:
        classes = {
            name: tuple(value for member in members for value in rule.classes.get(member, ()))
            for name, members in merge.items()
        }
        more = tuple(value for name in ignored for value in rule.classes.get(name, ()))
        return Encoding(
            rule.read,
            {name: values for name, values in classes.items() if values},
            REST if rule.ignored == REST else (*rule.ignored, *more),
        )

    rules = {name: merged(rule) for name, rule in base.encodings.items()}
    return {name: rule for name, rule in rules.items() if rule.classes}
