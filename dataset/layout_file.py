"""Layout files: TOML files that say where the images and labels of a data set lie.

``layouts/`` has the built-in ones. The shortest::

    class_set = "mine.toml"
    [splits.train]
    images = "photos/train/{key}.jpg"
    labels = "masks/train/{key}_mask.png"

Patterns are those of dataset/path_pattern.py.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataset.class_set_file import DEFAULT
from dataset.path_pattern import PathPattern
from dataset.toml_file import read_toml, refuse_unknown_keys

LAYOUTS = Path(__file__).with_name("layouts")
_FIRST = ("gta5", "cityscapes", "synthia")
"""The layouts that messages name first."""
_TYPES: dict[str, type] = {
    **dict.fromkeys(("name", "title", "page", "images_of"), str),
    **dict.fromkeys(("class_set", "encoding", "label_kind"), str),
    **dict.fromkeys(("by_name_alone", "only_by_name", "more_labels"), bool),
    **dict.fromkeys(("recognized_by", "not_with", "typical", "other_labels"), list),
    **dict.fromkeys(("splits", "messages"), dict),
}
"""The type of every key of a layout file."""
_SPLIT_KEYS = {"images", "labels", "count"}
_MESSAGE_KEYS = {"described", "root", "images", "labels", "other_labels"}
LABEL_KINDS = ("16-bit color",)


@dataclass(frozen=True)
class Split:
    """The files of one split.

    ``images``, ``labels``: patterns that are tried in this order, the first with files counts;
    without ``labels`` the split has none. ``count``: number of images of a whole copy.
    """

    images: tuple[PathPattern, ...]
    labels: tuple[PathPattern, ...] = ()
    count: int | None = None


@dataclass(frozen=True)
class Layout:
    """Where the files of a data set lie.

    ``page``: the owners' page that says so. ``class_set``, ``encoding``: of the labels (None: the
    class set has only one). ``by_name_alone``: pair files by their names where folders do not fit.
    ``only_by_name``: never recognized, only named. ``recognized_by``: folders one of which shows
    this data set (default: those of images), unless a folder of ``not_with`` is there.
    ``typical``: patterns that only its own images match; where folders fit several data sets and no
    label is there, they decide. ``images_of``: the data set whose scenes these are; default: one
    for each split, since names may be equal in several.
    ``other_labels``: files that are passed over, by the ending of {key}. ``more_labels``: labels
    without image are passed over. ``label_kind``: a key of LABEL_KINDS that the first label must
    have. ``messages``: what to say when files are missing.
    """

    name: str
    title: str
    splits: dict[str, Split]
    page: str = ""
    class_set: str = DEFAULT
    encoding: str | None = None
    by_name_alone: bool = False
    only_by_name: bool = False
    recognized_by: tuple[str, ...] = ()
    not_with: tuple[str, ...] = ()
    typical: tuple[str, ...] = ()
    images_of: str = ""
    other_labels: tuple[str, ...] = ()
    more_labels: bool = False
    label_kind: str | None = None
    messages: dict[str, str] = field(default_factory=dict)
    file: Path | None = None

    def data_name(self, split: str) -> str:
        """The name of a split in a prepared root, such as "gta5" or "cityscapes-train"."""
        return self.name if len(self.splits) == 1 else f"{self.name}-{split}"

    def split(self, name: str) -> tuple[str, Split]:
        """The split ``name``; that of a data set with only one, whatever ``name``.

        Raises ValueError for an unknown split.
        """
        if len(self.splits) == 1:
            return next(iter(self.splits.items()))
        if name not in self.splits:
            raise ValueError(
                f"{self.title} has no split {name!r}; expected one of {', '.join(self.splits)}."
            )
        return name, self.splits[name]

    def split_text(self, name: str) -> str:
        """A split with the number of its images, where that is known."""
        count = self.split(name)[1].count
        return name if count is None else f"{name} ({count:,} images in a whole copy)"

    def labelled_splits(self) -> list[str]:
        """The names of the splits that have labels."""
        return [name for name, split in self.splits.items() if split.labels]

    def described(self) -> str:
        """What is looked for: "images/*.png with labels/*.png (GTA5)"."""
        if "described" in self.messages:
            return self.messages["described"]
        names = [name for name in ("train", *self.labelled_splits()) if name in self.splits]
        split = self.splits[names[0]] if names else next(iter(self.splits.values()))
        labels = f" with {split.labels[0].example()}" if split.labels else ""
        return f"{split.images[0].example()}{labels} ({self.title})"


def builtin_layouts() -> list[str]:
    """The names of the built-in layouts, those of the paper first."""
    names = sorted(path.stem for path in LAYOUTS.glob("*.toml"))
    return [*_FIRST, *(name for name in names if name not in _FIRST)]


@functools.cache
def all_layouts() -> tuple[Layout, ...]:
    """The built-in layouts, in the order of ``builtin_layouts``."""
    return tuple(load_layout(name) for name in builtin_layouts())


def load_layout(word: str | Path) -> Layout:
    """A built-in layout by its name, or one from a TOML file.

    Raises FileNotFoundError for neither, ValueError for a file that is no sound layout.
    """
    path, content = read_toml(word, LAYOUTS, "layout")
    return _layout_of(content, path)


def _layout_of(content: Mapping[str, Any], path: Path) -> Layout:
    """The layout of a file's ``content``. Raises ValueError."""
    refuse_unknown_keys(content, _TYPES, str(path))
    for key, value in content.items():
        kind = _TYPES[key]
        is_texts = kind is list and isinstance(value, list) and all(type(v) is str for v in value)
        if not (is_texts or (kind is not list and isinstance(value, kind))):
            expected = {str: "a text", bool: "true or false", list: "a list of texts"}
            raise ValueError(
                f"{path}: {key} is {value!r}; expected {expected.get(kind, f'a section [{key}]')}."
            )
    messages = content.get("messages", {})
    refuse_unknown_keys(messages, _MESSAGE_KEYS, f"{path}, [messages]")
    for key, text in messages.items():
        if not isinstance(text, str):
            raise ValueError(f"{path}, [messages]: {key} is {text!r}; expected a text.")
    splits = content.get("splits")
    if not splits:
        raise ValueError(
            f"{path} says nothing of images. Expected a section such as [splits.train] with images"
            ' = "photos/{key}.jpg" and labels = "masks/{key}.png".'
        )
    kind = content.get("label_kind", LABEL_KINDS[0])
    if kind not in LABEL_KINDS:
        raise ValueError(
            f"{path}: label_kind is {kind!r}; expected one of {', '.join(LABEL_KINDS)}."
        )
    settings = {
        key: tuple(value) if _TYPES[key] is list else value for key, value in content.items()
    }
    settings["name"] = settings.get("name", path.stem)
    for name in (settings["name"], *splits):
        if not re.fullmatch(r"[\w.-]+", name):
            raise ValueError(
                f"{path}: {name!r} names files of prepared roots; expected letters, digits and - _"
                " only."
            )
    settings["class_set"] = _beside(settings.get("class_set", DEFAULT), path)
    settings["splits"] = {
        split: _split(part, f"{path}, [splits.{split}]") for split, part in splits.items()
    }
    return Layout(**{"title": settings["name"], **settings, "file": path})


def _beside(word: str, file: Path) -> str:
    """The class set that a layout names: a file relative to its own folder, or a name."""
    beside = file.parent / word
    return str(beside) if word.endswith(".toml") and beside.is_file() else word


def _split(section: Any, origin: str) -> Split:
    """One section [splits.NAME]. Raises ValueError."""
    if not isinstance(section, Mapping) or "images" not in section:
        raise ValueError(
            f'{origin}: expected images = "photos/{{key}}.jpg" and labels, found {section!r}.'
        )
    refuse_unknown_keys(section, _SPLIT_KEYS, origin)
    patterns = {}
    for kind in ("images", "labels"):
        given = section.get(kind, [])
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{origin}: {kind} is {given!r}; expected a pattern, or several.")
        try:
            patterns[kind] = tuple(map(PathPattern, texts))
        except ValueError as error:
            raise ValueError(f"{origin}, {kind}: {error}") from error
    for pattern in patterns["labels"]:
        if pattern.suffix.lower() != ".png":
            raise ValueError(
                f"{origin}: labels are PNG files, {pattern.text!r} is none. Save BMP, TIFF and GIF"
                " as PNG. Lossy compression, as in JPEG, makes other classes of the pixels at every"
                " edge: there, use the original labels."
            )
    if not patterns["images"]:
        raise ValueError(
            f"{origin}: images has no pattern. Expected one such as photos/{{key}}.jpg"
        )
    count = section.get("count")
    if count is not None and not (type(count) is int and count > 0):
        raise ValueError(f"{origin}: count is {count!r}; expected the number of images.")
    return Split(patterns["images"], patterns["labels"], count)
