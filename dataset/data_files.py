"""Finds the images and labels of a raw data set by the patterns of its layout.

An image and a label belong together when all placeholders that both patterns have are equal;
several images may have one label (the fog densities of Foggy Cityscapes). The name of an image in
lists is its path below the leading folders of the pattern that have no placeholder, without suffix.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from dataset.image_io import IMAGE_SUFFIXES
from dataset.layout_file import Layout
from dataset.listing import DataFiles, endings_of, matched_keys
from dataset.path_pattern import FoundFile, PathPattern, find_by_pattern

CONVERTED_LABELS = "_labelTrainIds"
"""Ending of label files that converters of other projects write beside the original ones."""


def find_data_files(
    layout: Layout,
    root: Path,
    split: str,
    labels: bool = True,
    twins: list[tuple[str, str]] | None = None,
) -> DataFiles:
    """The files of ``split`` of a raw root, before images and labels are paired. No label is read.

    Arguments and errors: see ``dataset.layout.find_pairs``.
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

    # Images and labels, each by the first of its patterns that matches files.
    is_label = partial(_is_label, patterns=files.labels)
    image_pattern, images = find_first(
        root, files.images, IMAGE_SUFFIXES, twins=twins, is_other=is_label
    )
    label_pattern, found = next(iter(files.labels), None), {}
    if files.labels and (labels or layout.by_name_alone):
        endings = (*layout.other_labels, CONVERTED_LABELS)
        label_pattern, found = find_first(root, files.labels, (".png",), endings, labels, twins)
        if not found:  # labels of a lossy format are refused with a reason when they are read
            label_pattern, found = find_first(root, files.labels, IMAGE_SUFFIXES, endings, False)

    # Their paths, by the keys that an image and its label share.
    image_paths = {key: file.path for key, file in images.items()}
    label_paths = pair_by_pattern(root, image_pattern, images, label_pattern, found)
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


def find_first(
    root: Path,
    patterns: Sequence[PathPattern],
    suffixes: Sequence[str],
    other_endings: Sequence[str] = (),
    say: bool = True,
    twins: list[tuple[str, str]] | None = None,
    is_other: Callable[[str], bool] = lambda path: False,
) -> tuple[PathPattern, dict[str, FoundFile]]:
    """The first of ``patterns`` that matches files, and these; the first one when none does.

    ``say``: whether to print which files are left out. Labels of a pattern with an ending are an
    exception: labels of several kinds lie in one folder by design. ``is_other``: whether a path
    below ``root`` is of another kind, such as a label beside its image.
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
            is_other,
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


def pair_by_pattern(
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
