"""Unlabelled images and videos that users name: files, folders and patterns."""

import functools
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dataset.find import LeftOut, match
from dataset.image_io import IMAGE_SUFFIXES
from dataset.label_files import is_label_file, label_folder, label_maps
from dataset.listing import ImageList

_LABELS_BY_CONTENT = "label files by their pixels"
_NO_INPUTS, _RESULTS = "files that are neither image nor video", "results in --output"
_PREDICTIONS = "predictions of other files here, by their names"
"""What is left out, in words."""
_PREDICTION = re.compile(r"(.+)_(overlay|colou?r|trainIds|labelIds)\.(png|mp4)")
"""Names of what scripts.predict writes, in any folder."""


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
    predictions = set() if as_named else _predictions(files)
    files = [path for path in files if path not in predictions]
    images, labels, maps, others = files_by_kind(files, folder, IMAGE_SUFFIXES, as_named)
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
    kinds = (
        *(("label files", labels), (_LABELS_BY_CONTENT, maps), ("other files", others)),
        (_PREDICTIONS, sorted(predictions)),
    )
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
        predictions = set() if as_named else _predictions(files) - results
        rest = [path for path in files if path not in results | predictions]
        chosen, labels, maps, others = files_by_kind(rest, folder, suffixes, as_named)
        kinds = {"label files": labels, _LABELS_BY_CONTENT: maps, _NO_INPUTS: others}
        kinds[_RESULTS] = [path for path in files if path in results]
        kinds[_PREDICTIONS] = sorted(predictions)
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


def _predictions(files: Sequence[Path]) -> set[Path]:
    """The ``files`` that scripts.predict made of others of them: a_overlay.png of a.png.

    Where names are not unique, it puts those of folders before them: x_a_overlay.png of x/a.png.
    """
    stems = {path.stem for path in files}
    found = set()
    for path in files:
        if match := _PREDICTION.fullmatch(path.name):
            words = match[1].split("_")
            if any("_".join(words[start:]) in stems for start in range(len(words))):
                found.add(path)
    return found


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


class FilesByKind(NamedTuple):
    """Files by what they are: ``labels`` by name or folder, ``maps`` by their pixels."""

    images: list[Path]
    labels: list[Path]
    maps: list[Path]
    others: list[Path]


def files_by_kind(
    paths: Sequence[Path], top: Path, suffixes: Sequence[str], as_named: bool = False
) -> FilesByKind:
    """Files with one of ``suffixes``, label files of data sets, and other files, in order.

    ``top``: the folder below which they were found. ``as_named``: no file is taken for a label.
    """
    siblings: dict[Path, set[str]] = {}
    labels = set() if as_named else {p for p in paths if is_label_file(p, top, siblings)}
    candidates = [p for p in paths if p not in labels and p.suffix.lower() in suffixes]
    maps = set() if as_named else label_maps(candidates)
    return FilesByKind(
        [path for path in candidates if path not in maps],
        [path for path in paths if path in labels],
        [path for path in candidates if path in maps],
        [p for p in paths if p not in labels and p.suffix.lower() not in suffixes],
    )
