"""Target images: a known data set, or any unlabelled images; and pseudo-labels for them."""

import functools
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dataset.class_set import ClassSet
from dataset.find import LeftOut, find_files, match, printable, say_joined_splits
from dataset.image_io import IMAGE_SUFFIXES
from dataset.label_files import folders_of_labels, is_label_file, label_folder
from dataset.label_format import CITYSCAPES_LABELS, LabelFormat
from dataset.layout import classes_of_labels, data_images
from dataset.layout_file import Layout, load_layout
from dataset.listing import ImageList
from dataset.listing_check import check_listing
from dataset.prepared.journal import is_prepared
from dataset.recognition import first_pairs, recognized_layouts, several_data_sets

_ENDING = "_leftImg8bit"
_LABEL_ENDINGS = {True: "_gtFine_labelIds", False: "_gtFine_labelTrainIds"}
"""Ending of label files, by LabelFormat.holds_label_ids."""
_LABELS_BY_CONTENT = "label files by their pixels"
_NO_INPUTS, _RESULTS = "files that are neither image nor video", "results in --output"
"""What is left out, in words."""


def target_images(
    words: Sequence[str], split: str = "train", layout: str | Path | None = None
) -> ImageList:
    """Target images without labels: ``split`` of a known data set, or any images.

    ``words``: one root, raw or prepared, of a known data set with splits (see ``target_layout``),
    or patterns for ``unlabelled_images``. ``layout``: name or TOML file; by default the root is
    recognized. Prints what a root is taken for, so that images of other
    splits are never used unnoticed. No label is opened. Raises what ``data_images`` and
    ``unlabelled_images`` raise, ValueError for a layout and several words.
    """
    if len(words) > 1:
        if layout is not None:
            raise ValueError(
                f"--target-layout {layout} describes one root, --target names {len(words)}. Give"
                " the root alone, or leave the layout out."
            )
        return unlabelled_images(words)
    root = Path(words[0]).expanduser()
    found = target_layout(root) if layout is None else load_layout(layout)
    if found is None:
        return unlabelled_images(words)
    images = data_images(root, split, labels=False, layout=found)
    if os.environ.get("RANK", "0") == "0":
        print(
            f"{printable(root)}: taken for {found.title}, split {found.split(split)[0]},"
            f" {len(images)} images."
        )
    return images


def target_layout(root: str | Path) -> Layout | None:
    """The layout of the root of a known data set that has splits; None for other images.

    A raw root must hold images that the layout's patterns match; leftImg8bit/ alone is enough for
    Cityscapes. Raises ValueError for a root of several data sets.
    """
    root = Path(root)
    if not root.is_dir():
        return None
    found = recognized_layouts(root)
    if not is_prepared(root):
        found = [
            layout
            for layout in found
            if len(layout.splits) > 1
            and (layout.name == "cityscapes" or first_pairs(layout, root)[0])
        ]
    if len(found) > 1:
        raise several_data_sets(root, found)
    return found[0] if found else None


def images_of_split(
    root: Path,
    split: str,
    labels: bool = True,
    layout: str | Path | None = None,
    class_set: ClassSet | None = None,
    list_file: Path | None = None,
) -> ImageList:
    """``split`` of a data set, such as the labelled val that is scored.

    ``layout``: see ``layout_with_splits``. ``class_set``: of the networks. Raises what
    ``layout_with_splits``, ``classes_of_labels`` and ``data_images`` raise.
    """
    found = layout_with_splits(root, layout)
    classes = None if class_set is None else classes_of_labels(found, Path(root), class_set)
    return data_images(root, split, labels, found, classes, list_file)


def layout_with_splits(root: Path, layout: str | Path | None = None) -> Layout:
    """The layout of a data set with splits: a name or TOML file, or by default recognized.

    A root of no known kind gets that of Cityscapes, whose message says what is missing. Raises what
    ``target_layout`` and ``load_layout`` raise, ValueError for a data set that has one split.
    """
    found = target_layout(root) if layout is None else load_layout(layout)
    if found is None and Path(root).is_dir():
        for other in recognized_layouts(Path(root)):
            if list(other.splits) == ["train"] and first_pairs(other, root)[0]:
                raise ValueError(
                    f"{root} is {other.title}, which has one split, train, and no"
                    f" val. Score it as source images (--source {root}), or name its layout"
                    f" (--layout {other.name})."
                )
    return found or load_layout("cityscapes")


def scored_images(
    root: Path, class_set: ClassSet | None = None, layout: str | Path | None = None
) -> ImageList:
    """The labelled images of a root to score a network on: the split val, or the only one.

    ``layout``: name or TOML file; by default the root is recognized. Raises what ``data_images``,
    ``classes_of_labels`` and ``check_listing`` raise.
    """
    root = Path(root).expanduser()
    found = target_layout(root) if layout is None else load_layout(layout)
    if found is not None and class_set is not None:
        class_set = classes_of_labels(found, root, class_set)
    images = data_images(root, "val", layout=found, class_set=class_set)
    check_listing(images)
    return images


def unlabelled_images(patterns: Sequence[str]) -> ImageList:
    """Images that ``patterns`` match, sorted; each is a file, a folder (with subfolders) or a glob.

    In a glob ``**`` matches any depth. The name of an image is its path below the deepest common
    folder, without suffix. Hidden files, other files and label files are left out, which is said;
    a file that is the only one named is an image, whatever it looks like.
    Raises FileNotFoundError when a pattern matches nothing, ValueError when it matches no image, or
    when two images would have the same name.
    """
    alone = len(patterns) == 1  # a shell makes many words of labels/*.png
    paths = sorted({path for pattern in patterns for path in find_images(pattern, alone)})
    root = Path(os.path.commonpath([path.parent for path in paths]))
    files: dict[str, str] = {}
    for path in paths:
        relative = path.relative_to(root)
        name = relative.with_suffix("").as_posix()
        if name in files:
            raise ValueError(
                f"{root / files[name]} and {path} differ in their suffix only: both would be called"
                f" {name!r}. Remove or rename one of them."
            )
        files[name] = relative.as_posix()
    if alone:
        remedy = "To use one of them alone, give this folder, or the data set's own root."
        say_joined_splits(files.values(), patterns[0], remedy)
    return ImageList(root, list(files), list(files.values()))


def find_images(pattern: str, alone: bool = False) -> list[Path]:
    """Absolute paths of the images that one pattern matches; label files are left out.

    ``alone``: no other pattern is given, and a single file is taken as it is.
    """
    left_out = LeftOut()
    folder, found = match(pattern, left_out)
    if not found.files and not found.folders and not folder_itself(pattern):
        raise FileNotFoundError(
            f"Nothing at {pattern}. Expected an image, a folder of images, or a pattern in quotes"
            " such as 'dashcam/**/*.jpg'."
        )
    files = [folder / path for path in found.files]
    as_named = alone and is_single_file(pattern, files)
    images, labels, maps, others = split_files(files, folder, IMAGE_SUFFIXES, as_named)
    if not images:
        suffixes = ", ".join(sorted({path.suffix.lower() or path.name for path in others})[:5])
        folders = len(found.folders) + folder_itself(pattern)
        decided = label_folder(labels[0], folder) if labels else None
        by_name = "" if decided is None else f" (by the name of the folder {decided})"
        by_content = f", {len(maps)} {_LABELS_BY_CONTENT}" if maps else ""
        raise ValueError(
            f"No image at {pattern}: found {len(labels)} label files{by_name}{by_content},"
            f" {len(others)} other files{f' ({suffixes})' if suffixes else ''} and"
            f" {folders} folders. Expected files ending in"
            f" {', '.join(IMAGE_SUFFIXES)}. Give a folder itself to use all images below it. Cut"
            " a video into images first: ffmpeg -i drive.mp4 -r 2 frames/%06d.jpg"
        )
    kinds = (("label files", labels), (_LABELS_BY_CONTENT, maps), ("other files", others))
    for kind, paths in kinds:
        if paths:
            left_out.add(kind, paths[0].relative_to(folder), len(paths))
    left_out.say(pattern)
    return images


def find_inputs(
    patterns: Sequence[str],
    video_suffixes: Sequence[str],
    output: Path | None = None,
    result: re.Pattern[str] | None = None,
) -> tuple[list[Path], list[Path]]:
    """Images and videos to segment; ``patterns`` are files, folders or glob patterns.

    Found like targets. Files below ``output`` with a name that ``result`` matches (None: all) are
    results, no inputs. Raises FileNotFoundError for a pattern without files, ValueError if there is
    neither image nor video.
    """
    images: dict[Path, None] = {}
    videos: dict[Path, None] = {}
    found_kinds: Counter[str] = Counter()
    suffixes = (*IMAGE_SUFFIXES, *video_suffixes)
    for pattern in patterns:
        left_out = LeftOut()
        folder, found = match(pattern, left_out)
        if not found.files and not found.folders and not folder_itself(pattern):
            raise FileNotFoundError(
                f"Nothing at {pattern}. Expected an image, a video, a folder, or a pattern in"
                " quotes."
            )
        files = sorted(folder / path for path in found.files)
        as_named = is_single_file(pattern, files)
        results = set() if as_named else _results(files, output, result)
        rest = [path for path in files if path not in results]
        chosen, labels, maps, others = split_files(rest, folder, suffixes, as_named)
        kinds = {"label files": labels, _LABELS_BY_CONTENT: maps, _NO_INPUTS: others}
        kinds[_RESULTS] = [path for path in files if path in results]
        for kind, paths in kinds.items():
            if paths:
                left_out.add(kind, paths[0].relative_to(folder), len(paths))
                found_kinds[kind] += len(paths)
        left_out.say(pattern)
        images |= {path: None for path in chosen if path.suffix.lower() in IMAGE_SUFFIXES}
        videos |= {path: None for path in chosen if path.suffix.lower() in video_suffixes}
    if not images and not videos:
        raise ValueError(_no_input(patterns, found_kinds, suffixes))
    return list(images), list(videos)


def _results(
    files: Sequence[Path], output: Path | None, result: re.Pattern[str] | None
) -> set[Path]:
    """The ``files`` that are results in ``output``, see ``find_inputs``."""
    if output is None:
        return set()
    real = functools.cache(lambda folder: Path(os.path.realpath(folder)))
    named = [path for path in files if result is None or result.fullmatch(path.name)]
    return {path for path in named if real(path.parent).is_relative_to(real(output))}


def _no_input(patterns: Sequence[str], left_out: Counter[str], suffixes: Sequence[str]) -> str:
    """The message for patterns without image and video: why, and what to do."""
    text = f"No image and no video in {', '.join(patterns)}"
    if left_out:
        counts = ", ".join(f"{count} {kind}" for kind, count in left_out.items())
        text += f"; left out: {counts}"
    text += f". Expected files ending in {', '.join(suffixes)}."
    if left_out[_RESULTS]:
        text += " To segment results again, give another --output."
    if left_out["label files"] or left_out[_LABELS_BY_CONTENT]:
        text += " A file that is given by itself is segmented, whatever it is."
    return text


def folder_itself(pattern: str) -> bool:
    """Whether a pattern is a folder, and means all that is below it."""
    return os.path.isdir(os.path.expanduser(pattern))


def is_single_file(pattern: str, files: Sequence[Path]) -> bool:
    """Whether ``files``, which a pattern matches, are one file, meant as it is."""
    return len(files) == 1 and not folder_itself(pattern)


class SplitFiles(NamedTuple):
    """Files by what they are: ``labels`` by name or folder, ``maps`` by their pixels."""

    images: list[Path]
    labels: list[Path]
    maps: list[Path]
    others: list[Path]


def split_files(
    paths: Sequence[Path], top: Path, suffixes: Sequence[str], as_named: bool = False
) -> SplitFiles:
    """Files with one of ``suffixes``, label files of data sets, and other files, in order.

    ``top``: the folder below which they were found. ``as_named``: no file is taken for a label.
    """
    siblings: dict[Path, set[str]] = {}
    labels = set() if as_named else {p for p in paths if is_label_file(p, top, siblings)}
    candidates = [p for p in paths if p not in labels and p.suffix.lower() in suffixes]
    folders = set() if as_named else set(folders_of_labels(candidates))
    maps = {p for p in candidates if p.suffix.lower() == ".png" and p.parent in folders}
    return SplitFiles(
        [path for path in candidates if path not in maps],
        [path for path in paths if path in labels],
        [path for path in candidates if path in maps],
        [p for p in paths if p not in labels and p.suffix.lower() not in suffixes],
    )


def label_path(name: str, split: str, label_format: LabelFormat = CITYSCAPES_LABELS) -> str:
    """Path of the label of the image ``name`` below a root: gtFine/SPLIT/NAME_gtFine_labelIds.png.

    ``name`` is that of its ImageList; the ending _leftImg8bit is dropped. Labels of trainIds end in
    _gtFine_labelTrainIds.png.
    """
    ending = _LABEL_ENDINGS[label_format.holds_label_ids]
    return f"gtFine/{split}/{name.removesuffix(_ENDING)}{ending}.png"


def with_labels(
    listing: ImageList,
    label_root: Path,
    split: str = "train",
    label_format: LabelFormat = CITYSCAPES_LABELS,
) -> ImageList:
    """The images of ``listing`` with pseudo-labels from ``label_root``, at their ``label_path``.

    Labels of other images are ignored. Raises FileNotFoundError unless every image has a label,
    ValueError for labels of other classes, and what ``check_listing`` raises.
    """
    label_root = Path(label_root).absolute()
    _require_classes(label_root, split, label_format.class_set)
    ending = _LABEL_ENDINGS[label_format.holds_label_ids]
    present = find_files(label_root, f"gtFine/{split}", ending, (".png",), say=False)
    keys = [name.removesuffix(_ENDING) for name in listing.names]
    unlabelled = [key for key in keys if key not in present]
    if unlabelled:
        raise FileNotFoundError(
            f"{len(unlabelled)} of {len(keys)} images have no label under {label_root}, the first"
            f" {label_root / label_path(unlabelled[0], split, label_format)}. Make the rest"
            " (python -m scripts.make_pseudo_labels continues where it stopped), or name the"
            " labelled images in a list."
        )
    files = [str(label_root / present[key]) for key in keys]
    labelled = listing.with_label_files(files, label_format)
    check_listing(labelled)
    return labelled


def label_record(label_root: Path, split: str) -> dict[str, Any]:
    """The record of scripts.make_pseudo_labels beside its labels; {} without one.

    Raises ValueError for a damaged one.
    """
    path = Path(label_root) / f"pseudo_labels-{split}.json"
    if not path.is_file():
        return {}
    try:
        record, found = json.loads(path.read_text(encoding="utf-8-sig")), "another content"
    except ValueError as error:
        record, found = None, f"no JSON ({error})"
    if not isinstance(record, dict):
        raise ValueError(
            f"{path} holds {found}. Expected the record of scripts.make_pseudo_labels, an object:"
            " make the labels again, or delete the file if they are of another origin."
        )
    return record


def _require_classes(label_root: Path, split: str, class_set: ClassSet) -> None:
    """Raises ValueError for pseudo-labels whose record names other classes."""
    classes = tuple(label_record(label_root, split).get("classes", class_set.names))
    if classes != class_set.names:
        raise ValueError(
            f"The pseudo-labels under {label_root} have the classes {', '.join(classes)}; this run"
            f" has {', '.join(class_set.names)} ({class_set.name}). Make them with a checkpoint of"
            " this class set, or give the run theirs."
        )
