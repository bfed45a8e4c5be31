"""Layouts of data sets: where images and labels lie, and which of them belong together.

A layout is a TOML file; ``layouts/`` has the built-in ones. The shortest::

    class_set = "mine.toml"
    [splits.train]
    images = "photos/train/{key}.jpg"
    labels = "masks/train/{key}_mask.png"

Patterns are those of dataset/path_pattern.py. An image and a label belong together when all
placeholders that both patterns have are equal; several images may have one label (the fog densities
of Foggy Cityscapes). The name of an image in lists is its path below the leading folders of the
pattern that have no placeholder, without suffix.
"""

import difflib
import os
import tomllib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dataset.class_set import ClassSet, load_class_set, toml_path
from dataset.find import printable
from dataset.image_io import IMAGE_SUFFIXES, is_synthia_label
from dataset.label_format import CITYSCAPES_LABELS, LabelFormat, fitting_format
from dataset.listing import DatasetLayout, ImageList, endings_of, matched_keys
from dataset.path_pattern import FoundFile, PathPattern, find_by_pattern, first_files
from dataset.prepared.journal import FOLDER as PREPARED
from dataset.prepared.journal import find_parts, prepared_class_set, prepared_listing

LAYOUTS = Path(__file__).with_name("layouts")
_LOOKED_AT = 16
"""Labels that are read, at least, to find their encoding."""
_FIRST = ("gta5", "cityscapes", "synthia")
"""The layouts that messages name first."""
_CONVERTED = "_labelTrainIds"
"""Ending of label files that converters of other projects write beside the original ones."""
_KEYS = {
    *("name", "title", "page", "class_set", "encoding", "splits", "by_name_alone"),
    *("only_by_name", "recognized_by", "not_with", "other_labels", "label_kind", "messages"),
}
_SPLIT_KEYS = {"images", "labels", "count"}
_MESSAGE_KEYS = {"described", "root", "images", "labels", "other_labels"}
_LABEL_KINDS = {"16-bit color": is_synthia_label}


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
    ``other_labels``: endings of files that are passed over. ``label_kind``: a key of _LABEL_KINDS
    that the first label must have. ``messages``: what to say when files are missing.
    """

    name: str
    title: str
    splits: dict[str, Split]
    page: str = ""
    class_set: str = "cityscapes19"
    encoding: str | None = None
    by_name_alone: bool = False
    only_by_name: bool = False
    recognized_by: tuple[str, ...] = ()
    not_with: tuple[str, ...] = ()
    other_labels: tuple[str, ...] = ()
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


def load_layout(word: str | Path) -> Layout:
    """A built-in layout by its name, or one from a TOML file.

    Raises FileNotFoundError for neither, ValueError for a file that is no sound layout.
    """
    path = toml_path(word, LAYOUTS, "layout")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML file ({error}). Correct it; see {LAYOUTS}.") from error
    _refuse_unknown(content, _KEYS, str(path))
    _refuse_unknown(content.get("messages", {}), _MESSAGE_KEYS, f"{path}, [messages]")
    splits = content.get("splits")
    if not isinstance(splits, Mapping) or not splits:
        raise ValueError(
            f"{path} says nothing of images. Expected a section such as [splits.train] with images"
            ' = "photos/{key}.jpg" and labels = "masks/{key}.png".'
        )
    kind = content.get("label_kind")
    if kind is not None and kind not in _LABEL_KINDS:
        raise ValueError(
            f"{path}: label_kind is {kind!r}; expected one of {', '.join(_LABEL_KINDS)}."
        )
    name = content.get("name", path.stem)
    lists = ("recognized_by", "not_with", "other_labels")
    settings = {key: value for key, value in content.items() if key not in ("name", "splits")}
    settings |= {key: tuple(settings[key]) for key in lists if key in settings}
    settings["class_set"] = _beside(settings.get("class_set", Layout.class_set), path)
    parts = {split: _split(part, f"{path}, [splits.{split}]") for split, part in splits.items()}
    return Layout(**{"title": name, **settings, "name": name, "splits": parts, "file": path})


def _beside(word: str, file: Path) -> str:
    """The class set that a layout names: a file relative to its own folder, or a name."""
    beside = file.parent / word
    return str(beside) if word.endswith(".toml") and beside.is_file() else word


def _refuse_unknown(content: Mapping[str, Any], known: set[str], origin: str) -> None:
    unknown = sorted(set(content) - known)
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"{origin} has the key {unknown[0]!r}, which nothing reads; expected only"
            f" {', '.join(sorted(known))}.{hint}"
        )


def _split(section: Any, origin: str) -> Split:
    """One section [splits.NAME]. Raises ValueError."""
    if not isinstance(section, Mapping) or "images" not in section:
        raise ValueError(
            f'{origin}: expected images = "photos/{{key}}.jpg" and labels, found {section!r}.'
        )
    _refuse_unknown(section, _SPLIT_KEYS, origin)
    patterns = {}
    for kind in ("images", "labels"):
        given = section.get(kind, [])
        texts = [given] if isinstance(given, str) else given
        try:
            patterns[kind] = tuple(map(PathPattern, texts))
        except ValueError as error:
            raise ValueError(f"{origin}, {kind}: {error}") from error
    for pattern in patterns["labels"]:
        if pattern.suffix.lower() != ".png":
            raise ValueError(
                f"{origin}: labels are PNG files, {pattern.text!r} is none. Lossy compression makes"
                " other classes of the pixels at every edge: use the original labels."
            )
    return Split(patterns["images"], patterns["labels"], section.get("count"))


def find_pairs(layout: Layout, root: Path, split: str, labels: bool = True) -> DatasetLayout:
    """The files of ``split`` of a raw root, before images and labels are paired.

    Raises FileNotFoundError when there is no image, or no label though ``labels`` are needed;
    ValueError for an image with two labels, for files that differ in their suffix only, for labels
    of another kind, and for a split that the data set does not have.
    """
    root = Path(root)
    split, files = layout.split(split)
    if not root.is_dir():
        raise FileNotFoundError(_no_root(layout, root))
    if labels and not files.labels:
        raise ValueError(
            f"The split {split} of {layout.title} has no labels; splits with labels:"
            f" {', '.join(layout.labelled_splits()) or 'none'}."
        )
    image_pattern, images = _find_first(root, files.images, IMAGE_SUFFIXES)
    label_pattern, found = None, {}
    if files.labels and (labels or layout.by_name_alone):
        label_pattern, found = _find_first(
            root, files.labels, (".png",), (*layout.other_labels, _CONVERTED), labels
        )
    image_paths = {key: file.path for key, file in images.items()}
    label_paths = _by_image(root, image_pattern, images, label_pattern, found)
    if layout.by_name_alone:
        image_paths, label_paths = matched_keys(image_paths, label_paths)
    label_folder = label_pattern.folder if label_pattern else ""
    for kind, paths, pattern in (
        ("images", image_paths, image_pattern),
        ("labels", label_paths, label_pattern),
    ):
        if not paths and (kind == "images" or labels):
            raise FileNotFoundError(_missing(layout, root, split, kind, pattern))
    tree = DatasetLayout(
        root,
        image_pattern.folder,
        label_folder,
        image_paths,
        label_paths,
        image_pattern.ending,
    )
    if labels:
        _require_label_kind(layout, tree)
    return tree


def _find_first(
    root: Path,
    patterns: Sequence[PathPattern],
    suffixes: Sequence[str],
    other_endings: Sequence[str] = (),
    say: bool = True,
) -> tuple[PathPattern, dict[str, FoundFile]]:
    """The first of ``patterns`` that matches files, and these; the first one when none does.

    Files that lie in folders with other ones by design, as labels of several kinds, are passed
    over in silence: those of a pattern with an ending.
    """
    is_labels = suffixes == (".png",)
    for pattern in patterns:
        endings = tuple(ending + pattern.ending for ending in other_endings)
        found = find_by_pattern(
            root,
            pattern,
            suffixes,
            lambda stem, endings=endings: bool(endings) and stem.endswith(endings),
            say and not (is_labels and pattern.ending),
        )
        if found:
            return pattern, found
    return patterns[0], {}


def _by_image(
    root: Path,
    image_pattern: PathPattern,
    images: Mapping[str, FoundFile],
    label_pattern: PathPattern | None,
    labels: Mapping[str, FoundFile],
) -> dict[str, str]:
    """The labels by the keys of their images, sorted; a label without image by the key it needs.

    Raises ValueError for an image with two labels.
    """
    if label_pattern is None:
        return {}
    shared = sorted(image_pattern.words & label_pattern.words)
    keys: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for key, file in images.items():
        keys[tuple(file.values[word] for word in shared)].append(key)
    paths: dict[str, str] = {}
    for key, file in labels.items():
        alone = image_pattern.key_of(file.values) or key
        for image in keys.get(tuple(file.values[word] for word in shared), [alone]):
            if image in paths:
                raise ValueError(
                    f"{root}: {images[image].path if image in images else image} has two labels,"
                    f" {paths[image]} and {file.path}. Remove one of them, or give the labels'"
                    f" pattern {label_pattern.text} no placeholder that the images' pattern"
                    f" {image_pattern.text} has not."
                )
            paths[image] = file.path
    return dict(sorted(paths.items()))


def _no_root(layout: Layout, root: Path) -> str:
    folders: dict[str, None] = {}
    for split in layout.splits.values():
        for patterns in (split.images, split.labels):
            if patterns:
                folders[f"{patterns[0].folder}/"] = None
    listed = list(folders)
    expected = " and ".join([", ".join(listed[:-1]), listed[-1]] if listed[1:] else listed)
    text = layout.messages.get(
        "root", f"{layout.title} is expected in the folder that holds {expected}."
    )
    return f"No folder {root}. {text}"


def _missing(layout: Layout, root: Path, split: str, kind: str, pattern: PathPattern) -> str:
    """What to say when no file of a kind ("images" or "labels") was found."""
    page = f" See {layout.page}." if layout.page else ""
    default = (
        f"No {kind} under {{folder}}. {layout.title} needs {pattern.example()} in {{root}}.{page}"
    )
    text = layout.messages.get(kind, default)
    words = {"folder": root / pattern.folder, "root": root, "split": split}
    for word, value in words.items():
        text = text.replace(f"{{{word}}}", str(value))
    return text + endings_of(root, pattern.folder)


def _require_label_kind(layout: Layout, tree: DatasetLayout) -> None:
    """Raises ValueError when the first label is of another kind than the layout's labels are."""
    if layout.label_kind is None:
        return
    first = tree.root / next(iter(tree.labels.values()))
    if not _LABEL_KINDS[layout.label_kind](first):
        default = f"{{file}} is no label of {layout.title}: these are {layout.label_kind} PNGs."
        text = layout.messages.get("other_labels", default)
        raise ValueError(text.replace("{file}", str(first)))


def data_images(
    root: Path,
    split: str,
    labels: bool = True,
    layout: Layout | None = None,
    class_set: ClassSet | None = None,
) -> ImageList:
    """The images of ``split`` of a raw or prepared root, sorted by name.

    ``layout``: by default the one that the root is recognized by. ``class_set``: of the labels; by
    default that of the layout. Without ``labels`` no label file is opened. Raises what ``detect``
    and ``labelled_pairs`` raise, FileNotFoundError unless images and labels are complete pairs,
    ValueError for a prepared root that is incomplete, stale, or of other classes.
    """
    root = Path(root)
    layout = detect(root) if layout is None else layout
    split, files = layout.split(split)
    if not (root / PREPARED).is_dir():
        return labelled_pairs(layout, root, split, labels, class_set).listing(labels)
    data, label_format = layout.data_name(split), CITYSCAPES_LABELS
    if labels:
        label_format = _prepared_format(layout, root, data, class_set)
    return prepared_listing(root, data, labels, files.images[0].ending, label_format)


def labelled_pairs(
    layout: Layout, root: Path, split: str, labels: bool = True, class_set: ClassSet | None = None
) -> DatasetLayout:
    """``find_pairs``, with the way in which its labels are read.

    That is the layout's encoding where ``class_set`` has it, else the only one of ``class_set``
    that fits the labels. Raises what ``find_pairs`` and ``fitting_format`` raise.
    """
    pairs = find_pairs(layout, root, split, labels)
    if not labels:
        return pairs
    class_set = class_set or load_class_set(layout.class_set)
    if layout.encoding in class_set.encodings:
        return pairs._replace(label_format=LabelFormat(class_set, layout.encoding))
    paths = [pairs.root / path for path in pairs.labels.values()]
    step = max(1, len(paths) // _LOOKED_AT)
    return pairs._replace(label_format=fitting_format(class_set, paths[::step], root))


def _prepared_format(
    layout: Layout, root: Path, data: str, class_set: ClassSet | None
) -> LabelFormat:
    """How the labels of a prepared root are read: labelIds, or trainIds of its own class set.

    Raises ValueError where it was prepared with other classes than those of ``class_set``.
    """
    stored = prepared_class_set(root, data)
    wanted = class_set or stored or load_class_set(layout.class_set)
    encodings = [
        name
        for name, rule in wanted.encodings.items()
        if (rule.read == "cityscapes") == (stored is None)
    ]
    if (stored is not None and stored.names != wanted.names) or not encodings:
        kind = "labelIds of Cityscapes" if stored is None else f"the classes of {stored.name}"
        raise ValueError(
            f"{root} was prepared with {kind}, which are not those of the class set {wanted.name}."
            " Prepare it with this class set into another --output, or give the class set that it"
            " was prepared with."
        )
    encoding = layout.encoding if layout.encoding in encodings else encodings[0]
    return LabelFormat(wanted, encoding)


class Nearness(NamedTuple):
    """How much of a layout a folder holds: numbers of files, and of images with a label."""

    layout: Layout
    images: int = 0
    labels: int = 0
    pairs: int = 0

    def text(self) -> str:
        return (
            f"{self.layout.title}: {self.images} images, {self.labels} labels, {self.pairs} pairs"
        )


def prepared_layouts(root: Path) -> list[Layout]:
    """The built-in layouts of the journals of a prepared root."""
    layouts = map(load_layout, builtin_layouts())
    return [
        layout
        for layout in layouts
        if any(find_parts(Path(root), layout.data_name(split)) for split in layout.splits)
    ]


def detect(root: Path) -> Layout:
    """The built-in layout of a raw or prepared root.

    Raises FileNotFoundError for a root of no known data set, with what was looked for and how near
    each came; ValueError for a root of several.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"No folder {root}. Expected the root of a labelled data set.")
    found = prepared_layouts(root) if (root / PREPARED).is_dir() else _recognized(root)
    if not found:
        raise FileNotFoundError(_unknown_root(root))
    if len(found) > 1:
        raise ValueError(
            f"{root} holds several data sets, {' and '.join(layout.name for layout in found)}: it"
            " is unclear which one to read. Give each a root of its own."
        )
    return found[0]


def _recognized(root: Path) -> list[Layout]:
    """The layouts that fit a raw root best, by their folders, else by the first files in these."""
    candidates = [
        layout
        for layout in map(load_layout, builtin_layouts())
        if not layout.only_by_name
        and any((root / folder).is_dir() for folder in _signs(layout))
        and not any((root / folder).is_dir() for folder in layout.not_with)
    ]
    if len(candidates) < 2:
        return candidates
    evidence = {layout.name: _first_pairs(layout, root) for layout in candidates}
    with_pairs = [layout for layout in candidates if evidence[layout.name][1]]
    if with_pairs:
        return with_pairs
    with_images = [layout for layout in candidates if evidence[layout.name][0]] or candidates
    return _most_special(with_images)


def _first_pairs(layout: Layout, root: Path) -> tuple[bool, bool]:
    """Whether the first images are there, and whether one of them has a label."""
    has_images = False
    for split in layout.splits.values():
        for pattern in split.images:
            files = first_files(root, pattern, IMAGE_SUFFIXES)
            has_images = has_images or bool(files)
            for file in files[:50]:
                paths = [labels.path_of(file.values) for labels in split.labels]
                if any(path is not None and (root / path).is_file() for path in paths):
                    return True, True
    return has_images, False


def _most_special(layouts: Sequence[Layout]) -> list[Layout]:
    """Without labels: leaves out layouts whose images lie in, or around, those of an earlier one.

    images/10k/train is more special than images; of equal folders the first layout is meant.
    """
    chosen: list[Layout] = []
    for layout in sorted(layouts, key=lambda layout: -max(map(len, _signs(layout)))):
        taken = {folder for other in chosen for folder in _signs(other)}
        if not any(
            other == folder or other.startswith(f"{folder}/")
            for folder in _signs(layout)
            for other in taken
        ):
            chosen.append(layout)
    return chosen


def _signs(layout: Layout) -> tuple[str, ...]:
    """Folders one of which shows a data set."""
    if layout.recognized_by:
        return layout.recognized_by
    return tuple(p.folder for split in layout.splits.values() for p in split.images if p.folder)


def nearness(layout: Layout, root: Path) -> Nearness:
    """How many images, labels and pairs of all labelled splits of ``layout`` a raw root holds."""
    images = labels = pairs = 0
    for split in layout.splits.values():
        image_pattern, found = _find_first(root, split.images, IMAGE_SUFFIXES, say=False)
        image_paths = {key: file.path for key, file in found.items()}
        label_paths: dict[str, str] = {}
        if split.labels:
            endings = (*layout.other_labels, _CONVERTED)
            pattern, files = _find_first(root, split.labels, (".png",), endings, False)
            label_paths = _by_image(root, image_pattern, found, pattern, files)
        if layout.by_name_alone:
            image_paths, label_paths = matched_keys(image_paths, label_paths)
        images += len(image_paths)
        labels += len(set(label_paths.values()))
        pairs += len(image_paths.keys() & label_paths.keys())
    return Nearness(layout, images, labels, pairs)


def _unknown_root(root: Path) -> str:
    """What to say about a root of no known data set."""
    layouts = [load_layout(name) for name in builtin_layouts()]
    looked_for = [layout for layout in layouts if not layout.only_by_name]
    expected = [layout.described() for layout in (*looked_for[3:], *looked_for[:3])]
    near = [nearness(layout, root) for layout in looked_for]
    near = [found for found in near if found.images or found.labels]
    inside = _data_sets_inside(root)
    if inside:
        hint = f" {inside} Give that folder."
    elif near:
        hint = f" Found: {'; '.join(found.text() for found in near)}."
    else:
        hint = " Found: no image and no label of any of them."
    return (
        f"{root} is no labelled data set of a known kind. Expected one of: {'; '.join(expected)};"
        f" or such a root prepared by scripts.prepare.{hint} For another tree, describe it in a"
        " file of ten lines: --source-layout FILE.toml, see docs/data.md."
    )


def _data_sets_inside(root: Path) -> str:
    """The first folder in ``root``, or above it, that is a data set: "X looks like ACDC."."""
    inside = sorted(Path(entry.path) for entry in os.scandir(root) if entry.is_dir())[:50]
    for folder in (*inside, root.parent, root.parent.parent):
        for layout in map(load_layout, builtin_layouts()):
            for split in layout.splits.values():
                folders = [
                    patterns[0].folder for patterns in (split.images, split.labels) if patterns
                ]
                if len(folders) == 2 and all(f and (folder / f).is_dir() for f in folders):
                    return f"{printable(folder)} looks like {layout.title}."
    return ""
