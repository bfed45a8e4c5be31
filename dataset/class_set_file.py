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

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataset.class_set import ClassSet
from dataset.class_set_entries import class_colors, class_names, encoding_of
from dataset.merge_rules import as_names, check_merge, merged_encodings
from dataset.toml_file import read_toml, refuse_unknown_keys

FOLDER = Path(__file__).with_name("class_sets")
DEFAULT = "cityscapes19"
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
    refuse_unknown_keys(content, _KEYS, origin)
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
    names = class_names(content, origin)
    colors = class_colors(content, names, origin)
    sections = content.get("encodings")
    if not isinstance(sections, Mapping) or not sections:
        raise ValueError(
            f"{origin} says nothing of the values in label files. Expected a section such as"
            ' [encodings.ids] with read = "index" and classes = {name = value, ...}.'
        )
    encodings = {
        key: encoding_of(section, names, f"{origin}, [encodings.{key}]")
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
    names = class_names({"classes": content.get("classes", list(merge))}, origin)
    ignored = as_names(content.get("ignored", []), "ignored", origin)
    check_merge(base.names, names, merge, ignored, origin)
    merged = ClassSet(
        name,
        names,
        class_colors(content, names, origin)
        if "colors" in content
        else tuple(base.colors[base.names.index(merge[key][0])] for key in names),
    )
    return replace(merged, encodings=merged_encodings(base, merge, ignored))


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
