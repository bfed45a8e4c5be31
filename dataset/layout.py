"""Finds the images and labels of a data set by its layout, and recognizes the layout of a root.

An image and a label belong together when all placeholders that both patterns have are equal;
several images may have one label (the fog densities of Foggy Cityscapes). The name of an image in
lists is its path below the leading folders of the pattern that have no placeholder, without suffix.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from dataset.class_set import ClassSet, load_class_set
from dataset.find import printable
from dataset.image_io import IMAGE_SUFFIXES, is_synthia_label
from dataset.label_format import CITYSCAPES_LABELS, LabelFormat, fitting_format
from dataset.layout_file import Layout, all_layouts
from dataset.listing import DataFiles, ImageList, endings_of, matched_keys
from dataset.path_pattern import FoundFile, PathPattern, find_by_pattern, first_files
from dataset.prepared.journal import FOLDER as PREPARED
from dataset.prepared.journal import find_parts, prepared_class_set, prepared_listing, read_part

_CONVERTED = "_labelTrainIds"
"""Ending of label files that converters of other projects write beside the original ones."""
_SAMPLED_LABELS = 20
"""Labels that are read to find the encoding, where neither layout nor class set says it."""
_LABEL_CHECKS = {"16-bit color": is_synthia_label}


def find_pairs(
    layout: Layout,
    root: Path,
    split: str,
    labels: bool = True,
    class_set: ClassSet | None = None,
    twins: list[tuple[str, str]] | None = None,
) -> DataFiles:
    """The files of ``split`` of a raw root, before images and labels are paired.

    ``class_set``: by default that of the layout. ``twins``: receives files that differ in their
    suffix only; None: they are an error. Raises FileNotFoundError when there is no image, or no
    label though ``labels`` are needed; ValueError for an image with two labels, for files
    that differ in their suffix only, for labels of another kind, and for a split that the data set
    does not have.
    """
    tree = find_data_files(layout, root, split, labels, twins)
    if not labels:
        return tree
    _require_label_kind(layout, tree)
    return tree._replace(label_format=raw_label_format(layout, tree, class_set))


def find_data_files(
    layout: Layout,
    root: Path,
    split: str,
    labels: bool = True,
    twins: list[tuple[str, str]] | None = None,
) -> DataFiles:
    """``find_pairs`` without a look into the label files: they count as those of Cityscapes."""
    root = Path(root)
    split, files = layout.split(split)
    if not root.is_dir():
        raise FileNotFoundError(_no_root(layout, root))
    if labels and not files.labels:
        raise ValueError(
            f"The split {split} of {layout.title} has no labels; splits with labels:"
            f" {', '.join(layout.labelled_splits()) or 'none'}."
        )
    image_pattern, images = _find_first(root, files.images, IMAGE_SUFFIXES, twins=twins)
    images = {key: f for key, f in images.items() if not _is_label(f.path, files.labels)}
    label_pattern, found = next(iter(files.labels), None), {}
    if files.labels and (labels or layout.by_name_alone):
        endings = (*layout.other_labels, _CONVERTED)
        label_pattern, found = _find_first(root, files.labels, (".png",), endings, labels, twins)
        if not found:  # labels of a lossy format are refused with a reason when they are read
            label_pattern, found = _find_first(root, files.labels, IMAGE_SUFFIXES, endings, False)
    image_paths = {key: file.path for key, file in images.items()}
    label_paths = _by_image(root, image_pattern, images, label_pattern, found)
    if layout.by_name_alone:
        image_paths, label_paths = matched_keys(image_paths, label_paths)
    if layout.more_labels:
        label_paths = {key: path for key, path in label_paths.items() if key in image_paths}
    label_folder = label_pattern.folder if label_pattern else ""
    for kind, paths, pattern in (
        ("images", image_paths, image_pattern),
        ("labels", label_paths, label_pattern),
    ):
        if not paths and (kind == "images" or labels):
            raise FileNotFoundError(_missing(layout, root, split, kind, pattern))
    return DataFiles(
        root,
        image_pattern.folder,
        label_folder,
        image_paths,
        label_paths,
        image_pattern.ending,
    )


def _find_first(
    root: Path,
    patterns: Sequence[PathPattern],
    suffixes: Sequence[str],
    other_endings: Sequence[str] = (),
    say: bool = True,
    twins: list[tuple[str, str]] | None = None,
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
            endings,
            say and not (is_labels and pattern.ending),
            twins,
        )
        if found:
            return pattern, found
    return patterns[0], {}


def _is_label(path: str, patterns: Sequence[PathPattern]) -> bool:
    """Whether a pattern of labels matches a file that a pattern of images matches, too."""
    stem, suffix = os.path.splitext(path)
    for pattern in patterns:
        folder = f"{pattern.folder}/" if pattern.folder else ""
        below = stem.removeprefix(folder)
        is_inside = stem.startswith(folder) and suffix.lower() == ".png"
        if is_inside and pattern.expression.fullmatch(below):
            return True
    return False


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
    if image_pattern.has_key_alone and label_pattern.has_key_alone:
        return {key: file.path for key, file in labels.items()}
    keys: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for key, file in images.items():
        keys[tuple(file.values[word] for word in shared)].append(key)
    paths: dict[str, str] = {}
    for key, file in labels.items():
        fitting = keys.get(tuple(file.values[word] for word in shared))
        for image in fitting or [image_pattern.key_of(file.values) or key]:
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


def _require_label_kind(layout: Layout, tree: DataFiles) -> None:
    """Raises ValueError when the first label is of another kind than the layout's labels are."""
    if layout.label_kind is None:
        return
    first = tree.root / next(iter(tree.labels.values()))
    if not _LABEL_CHECKS[layout.label_kind](first):
        default = f"{{file}} is no label of {layout.title}: these are {layout.label_kind} PNGs."
        text = layout.messages.get("other_labels", default)
        raise ValueError(text.replace("{file}", str(first)))


def raw_label_format(layout: Layout, tree: DataFiles, class_set: ClassSet | None) -> LabelFormat:
    """How the labels of a raw root are read: by the layout's encoding, else by the one that fits.

    Raises ValueError when no encoding of the class set fits the labels.
    """
    classes = _class_set(layout, class_set)
    encoding = _encoding(layout, classes)
    if encoding is not None:
        return _format(classes, encoding)
    paths = [tree.root / path for path in tree.labels.values()]
    sampled = paths[:: max(1, len(paths) // _SAMPLED_LABELS)][:_SAMPLED_LABELS]
    fitting: Counter[str] = Counter()
    for path in sampled:  # one damaged label must not hide what the others are
        fitting.update(name for name in classes.encodings if _fits(classes, name, path))
    best = [name for name, count in fitting.items() if count == max(fitting.values())]
    if len(best) == 1 and 2 * fitting[best[0]] >= len(sampled):
        return _format(classes, best[0])
    return fitting_format(classes, sampled, tree.root)


def _fits(class_set: ClassSet, encoding: str, path: Path) -> bool:
    """Whether an encoding names all values of a label, and one of a class among them."""
    try:
        fitting_format(
            replace(class_set, encodings={encoding: class_set.encodings[encoding]}), [path], path
        )
    except (ValueError, FileNotFoundError):
        return False
    return True


def _class_set(layout: Layout, class_set: ClassSet | None) -> ClassSet:
    return load_class_set(layout.class_set) if class_set is None else class_set


def _encoding(layout: Layout, class_set: ClassSet) -> str | None:
    """The encoding that the layout names, if the class set has it, or the class set's only one.

    For a layout that names none, that of Cityscapes' own files for Cityscapes' classes.
    """
    if layout.encoding in class_set.encodings:
        return layout.encoding
    if class_set == CITYSCAPES_LABELS.class_set:
        return CITYSCAPES_LABELS.encoding
    return next(iter(class_set.encodings)) if len(class_set.encodings) == 1 else None


def _format(class_set: ClassSet, encoding: str) -> LabelFormat:
    label_format = LabelFormat(class_set, encoding)
    return CITYSCAPES_LABELS if label_format == CITYSCAPES_LABELS else label_format


def _prepared_format(
    layout: Layout, root: Path, split: str, class_set: ClassSet | None
) -> LabelFormat:
    """How the labels of a prepared root are read, which hold labelIds or trainIds.

    Raises ValueError where it was prepared with other classes than those of ``class_set``.
    """
    stored = prepared_class_set(root, layout.data_name(split))
    classes = class_set or stored or _class_set(layout, None)
    fitting = [
        name
        for name, rule in classes.encodings.items()
        if (rule.read == "cityscapes") == (stored is None)
    ]
    if (stored is not None and stored.names != classes.names) or not fitting:
        kind = "labelIds of Cityscapes" if stored is None else f"the classes of {stored.name}"
        raise ValueError(
            f"{root} was prepared with {kind}, which are not those of the class set {classes.name}."
            " Prepare it with this class set into another --output, or give the class set that it"
            " was prepared with."
        )
    return _format(classes, layout.encoding if layout.encoding in fitting else fitting[0])


def data_images(
    root: Path,
    split: str,
    labels: bool = True,
    layout: Layout | None = None,
    class_set: ClassSet | None = None,
) -> ImageList:
    """The images of ``split`` of a raw or prepared root, sorted by name.

    ``layout``: by default the one that the root is recognized by; ``class_set``: by default that of
    the layout. Without ``labels`` no label file is opened. Raises what ``detect`` and
    ``find_pairs`` raise, FileNotFoundError unless images and labels are complete pairs, ValueError
    for a prepared root that is incomplete, stale or of other classes.
    """
    root = Path(root)
    layout = detect(root) if layout is None else layout
    split, files = layout.split(split)
    if (root / PREPARED).is_dir():
        label_format = CITYSCAPES_LABELS
        if labels:
            label_format = _prepared_format(layout, root, split, class_set)
        ending = files.images[0].ending
        images = prepared_listing(root, layout.data_name(split), labels, ending, label_format)
    else:
        images = find_pairs(layout, root, split, labels, class_set).listing(labels)
    images.data_set = layout.images_of or layout.data_name(split)
    return images


class Nearness(NamedTuple):
    """How much of a layout a folder holds: numbers of files, and of images with a label."""

    layout: Layout
    images: int = 0
    labels: int = 0
    pairs: int = 0

    def text(self) -> str:
        found = "nothing"
        if self.images or self.labels:
            found = f"{self.images} images, {self.labels} labels, {self.pairs} pairs"
        return f"{self.layout.described()}: {found}"


def prepared_layouts(root: Path) -> list[Layout]:
    """The built-in layouts of the journals of a prepared root."""
    return [
        layout
        for layout in all_layouts()
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
    found = recognized_layouts(root)
    if not found:
        raise FileNotFoundError(_unknown_root(root))
    if len(found) > 1:
        raise several_data_sets(root, found)
    return found[0]


def several_data_sets(root: Path, layouts: Sequence[Layout]) -> ValueError:
    """The error for a root of several data sets."""
    return ValueError(
        f"{root} holds several data sets, {' and '.join(layout.name for layout in layouts)}: it"
        " is unclear which one to read. Give each a root of its own."
    )


def recognized_layouts(root: Path) -> list[Layout]:
    """The layouts that fit a root best: by journals of a prepared root, by folders of a raw one.

    Where the folders fit several layouts, the first files in these decide.
    """
    if (root / PREPARED).is_dir():
        return prepared_layouts(root)
    candidates = [
        layout
        for layout in all_layouts()
        if not layout.only_by_name
        and any((root / folder).is_dir() for folder in _signs(layout))
        and not any((root / folder).is_dir() for folder in layout.not_with)
    ]
    if len(candidates) < 2:
        return candidates
    evidence = {layout.name: first_pairs(layout, root) for layout in candidates}
    with_pairs = [layout for layout in candidates if evidence[layout.name][1]]
    if with_pairs:
        return with_pairs
    with_images = [layout for layout in candidates if evidence[layout.name][0]]
    typical = [layout for layout in with_images if _is_typical(layout, root)]
    return _most_special(typical or with_images or candidates)


def _is_typical(layout: Layout, root: Path) -> bool:
    """Whether the first images are called as only those of this data set are, if it says how."""
    patterns = map(PathPattern, layout.typical)
    return not layout.typical or any(first_files(root, p, IMAGE_SUFFIXES) for p in patterns)


def first_pairs(layout: Layout, root: Path) -> tuple[bool, bool]:
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
    for layout in sorted(layouts, key=lambda layout: -max(map(len, _image_folders(layout)))):
        taken = {folder for other in chosen for folder in _image_folders(other)}
        if not any(
            other == folder or other.startswith(f"{folder}/")
            for folder in _image_folders(layout)
            for other in taken
        ):
            chosen.append(layout)
    return [layout for layout in layouts if layout in chosen]


def _signs(layout: Layout) -> tuple[str, ...]:
    """Folders one of which shows a data set."""
    return layout.recognized_by or _image_folders(layout)


def _image_folders(layout: Layout) -> tuple[str, ...]:
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
    journals = sorted((root / PREPARED).glob("*-of-*.jsonl"))
    if journals:
        header = next(read_part(journals[0]), None)
        data = journals[0].name.rsplit("-", 3)[0]
        command = f" It was prepared with: {header.command}" if header else ""
        return (
            f"{root} is a prepared root of {data}, whose layout is not built in. Name it:"
            f" --source-layout FILE.toml.{command}"
        )
    looked_for = [layout for layout in all_layouts() if not layout.only_by_name]
    first = "; ".join(layout.described() for layout in looked_for[:3])
    near = "".join(f"\n  {nearness(layout, root).text()}" for layout in looked_for)
    return (
        f"{root} is no labelled data set of a known kind. Expected one of: {first}; or such a root"
        f" prepared by scripts.prepare; or one of those below. {_data_sets_inside(root)}Describe"
        " another tree in a file of ten lines, see docs/data.md: --source-layout FILE.toml"
        f" (scripts.prepare: --layout). Looked for, and found in all splits together:{near}"
    )


def _data_sets_inside(root: Path) -> str:
    """The first folder in ``root``, or above it, that is a data set, as a sentence, or ""."""
    inside = sorted(Path(entry.path) for entry in os.scandir(root) if entry.is_dir())[:50]
    for folder in (*inside, root.parent, root.parent.parent):
        for layout in all_layouts():
            for split in layout.splits.values():
                folders = [
                    patterns[0].folder for patterns in (split.images, split.labels) if patterns
                ]
                if len(folders) == 2 and all(f and (folder / f).is_dir() for f in folders):
                    return f"{printable(folder)} looks like {layout.title}: give that folder. "
    return ""
