"""Guesses where images and labels lie in a tree of no known layout, from names and contents."""

import difflib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dataset.describe.suggest import SuggestedSplit
from dataset.describe.values import evenly
from dataset.find import LeftOut, walk
from dataset.image_io import IMAGE_SUFFIXES

_SPLIT = re.compile(
    r"(?:^|[_\-.])(train(?:ing)?|valid(?:ation)?|val|test(?:ing)?)(?=[_\-.]|$)", re.I
)
_TAIL = re.compile(r"(?<=\d)(?:[_\-.][A-Za-z][\w\-.]*|[A-Za-z]+)$")
_MOST_TAILS = 8
"""Names with more different endings are no files of several kinds."""
_MOST_VALUES, _LEAST_FLAT, _LEAST_SIDE = 256, 0.75, 8
"""A label map has few values, and most pixels have the value of their right neighbor."""
_OPENED = 3
"""Files of a group that are opened to see what they are."""


@dataclass
class FileGroup:
    """Files of one folder with one ending: ``paths`` by key, the name without ending and suffix."""

    folder: str
    ending: str
    suffix: str
    paths: dict[str, str]
    is_labels: bool = False

    @property
    def parts(self) -> list[str]:
        return self.folder.split("/") if self.folder else []


class Pattern(NamedTuple):
    """A pattern in parts: folders, and what follows {key}."""

    folders: tuple[str, ...]
    ending: str

    def text(self) -> str:
        return "/".join([*self.folders, "{key}" + self.ending])


@dataclass
class Guess:
    """What a tree seems to hold.

    ``splits``: {name: patterns}. ``notes``: what was seen besides.
    """

    splits: dict[str, SuggestedSplit] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def has_labels(self) -> bool:
        return any(split.labels for split in self.splits.values())


def guess_layout(root: Path) -> Guess:
    """Patterns of images and labels below ``root``. Raises ValueError where there is no image."""
    files = walk(Path(root), LeftOut()).files
    paths = [path for path in files if os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES]
    if not paths:
        raise ValueError(_no_image_text(root, files))
    guess = Guess()
    groups = _groups(paths)
    for group in groups:
        group.is_labels = _are_label_maps(root, group)
    images = [group for group in groups if not group.is_labels]
    labels = [group for group in groups if group.is_labels]
    if not images:
        raise ValueError(
            f"{root} holds {len(paths)} label maps, such as {paths[0]}, and no image. Expected a"
            " folder with images: give the one that holds images and labels."
        )
    pairs, alone = _paired(images, labels, root)
    guess.notes += [
        f"{text} look like labels and are not taken: no image has their names, or other labels fit"
        " better"
        for text in _texts(alone)
    ]
    _add_pairs(guess, pairs)
    paired = {id(image) for image, _ in pairs}
    _add_images(guess, [group for group in images if id(group) not in paired], pairs)
    others = Counter(os.path.splitext(path)[1].lower() for path in set(files) - set(paths))
    for suffix, count in others.most_common(4):
        guess.notes.append(f"{count} files {suffix or 'without suffix'} are neither")
    return guess


def _no_image_text(root: Path, files: Sequence[str]) -> str:
    counts = Counter(os.path.splitext(path)[1].lower() or "no suffix" for path in files)
    found = ", ".join(f"{count} files {suffix}" for suffix, count in counts.most_common(5))
    return (
        f"No image below {root}: found {found or 'no file'}. Expected files ending in"
        f" {', '.join(IMAGE_SUFFIXES)}. Unpack archives, convert other images to PNG, and cut"
        " videos into images (ffmpeg -i drive.mp4 -r 2 frames/%06d.jpg)."
    )


def _groups(paths: Iterable[str]) -> list[FileGroup]:
    """The files by folder, ending and suffix, sorted."""
    by_folder: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for path in paths:
        folder, _, name = path.rpartition("/")
        stem, suffix = os.path.splitext(name)
        by_folder[folder, suffix][stem] = path
    stems_of: dict[str, set[str]] = defaultdict(set)
    for (folder, _), files in by_folder.items():
        stems_of[folder] |= files.keys()
    groups = []
    for (folder, suffix), files in sorted(by_folder.items()):
        endings = _endings(files, stems_of[folder])
        for ending in sorted(set(endings.values())):
            chosen = {
                stem.removesuffix(ending): path
                for stem, path in files.items()
                if endings[stem] == ending
            }
            groups.append(FileGroup(folder, ending, suffix, chosen))
    return groups


def _endings(stems: Iterable[str], beside: set[str]) -> dict[str, str]:
    """{stem: its ending}: what follows another stem, or a number, or what all have."""
    stems = list(stems)
    endings = {stem: _behind_another(stem, beside) for stem in stems}
    tails = {stem: m[0] if (m := _TAIL.search(stem)) else "" for stem in stems}
    rest = [stem for stem in stems if not endings[stem]]
    counts = Counter(tails[stem] for stem in rest)
    is_kind = len(counts) <= _MOST_TAILS and min(counts.values(), default=0) > 1
    if is_kind and set(counts) != {""}:
        endings |= {stem: tails[stem] for stem in rest}
    elif len(rest) == 1:
        endings[rest[0]] = tails[rest[0]]
    elif rest:
        length = min(_equal_at_start(stem[::-1], rest[0][::-1]) for stem in rest)
        common = rest[0][len(rest[0]) - length :]
        match = re.search(r"[_\-.][A-Za-z].*$", common)
        endings |= dict.fromkeys(rest, match[0] if match else "")
    return endings


def _behind_another(stem: str, beside: set[str]) -> str:
    """The ending of "x_mask" where there is an "x" in the same folder."""
    for match in reversed(list(re.finditer(r"[_\-.]", stem))):
        if match.start() and stem[: match.start()] in beside:
            return stem[match.start() :]
    return ""


def _are_label_maps(root: Path, group: FileGroup) -> bool:
    if group.suffix.lower() != ".png":
        return False
    return all(
        is_label_map(Path(root) / path) for path in evenly(list(group.paths.values()), _OPENED)
    )


def is_label_map(path: Path) -> bool:
    """Whether an image has few values in large areas, in one channel or as colors.

    False for a file that cannot be opened: whoever reads it says what is wrong with it.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:
                return False
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    if min(pixels.shape[:2]) < _LEAST_SIDE:
        return False
    if pixels.ndim == 3:
        color = pixels[..., : 1 if pixels.shape[2] < 3 else 3].astype(np.int32)
        pixels = color @ np.array([65536, 256, 1][: color.shape[2]], np.int32)
    is_flat = (pixels[:, 1:] == pixels[:, :-1]).mean() >= _LEAST_FLAT
    return bool(is_flat) and len(np.unique(pixels)) <= _MOST_VALUES


def _paired(
    images: Sequence[FileGroup], labels: Sequence[FileGroup], root: Path
) -> tuple[list[tuple[FileGroup, FileGroup]], list[FileGroup]]:
    """The best labels of each group of images, and groups of labels that are not taken."""
    best: dict[int, tuple[tuple, FileGroup, FileGroup]] = {}
    by_key: dict[str, list[FileGroup]] = defaultdict(list)
    for image in images:
        for key in image.paths:
            by_key[key].append(image)
    for label in labels:
        keys = list(label.paths)
        candidates = [image for key in keys[:: max(1, len(keys) // 8)] for image in by_key[key]]
        partner = max(candidates, key=lambda image: _fit(image, label), default=None)
        if partner is None or not _fit(partner, label)[0]:
            continue
        *fit, alike = _fit(partner, label)
        score = (*fit, _plainness(root, label), alike)
        if id(partner) not in best or score > best[id(partner)][0]:
            best[id(partner)] = score, partner, label
    pairs = [(image, label) for _, image, label in best.values()]
    taken = {id(label) for _, label in pairs}
    return pairs, [label for label in labels if id(label) not in taken]


def _texts(groups: Sequence[FileGroup]) -> list[str]:
    """Numbers of files with an example, one text for all groups of one ending."""
    by_ending: dict[tuple[str, str], list[FileGroup]] = defaultdict(list)
    for group in groups:
        by_ending[group.ending, group.suffix].append(group)
    return [
        f"{sum(len(group.paths) for group in members)} files *{ending}{suffix}, such as"
        f" {next(iter(members[0].paths.values()))},"
        for (ending, suffix), members in by_ending.items()
    ]


def _fit(image: FileGroup, label: FileGroup) -> tuple[int, int, float]:
    """How well two groups fit: common keys, common folders, alike folders (train, trainannot)."""
    head, tail = _common(image.parts, label.parts)
    alike = difflib.SequenceMatcher(None, image.folder, label.folder).ratio()
    return len(image.paths.keys() & label.paths.keys()), head + tail, alike


def _plainness(root: Path, group: FileGroup) -> tuple[int, int, int]:
    """Labels of indices before colors, 8 bits before 16; many classes before a mask of one."""
    with Image.open(Path(root) / next(iter(group.paths.values()))) as image:
        kind = {"P": 3, "L": 3, "1": 3, "RGB": 2, "RGBA": 2}.get(image.mode, 1)
        pixels = np.asarray(image)
    values = np.unique(pixels.reshape(-1, pixels.shape[2] if pixels.ndim == 3 else 1), axis=0)
    return kind, len(values), -len(group.ending)


def _common(first: Sequence[str], second: Sequence[str]) -> tuple[int, int]:
    """Numbers of equal folders from the front, then from the back."""
    head = _equal_at_start(first, second)
    return head, _equal_at_start(first[head:][::-1], second[head:][::-1])


def _equal_at_start(first: Sequence[str], second: Sequence[str]) -> int:
    """Number of equal elements, or characters, from the start."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


def _split_word(part: str) -> str | None:
    """The split that the name of a folder tells: "train", "val", "test", or None."""
    match = _SPLIT.search(part)
    return match and {"tr": "train", "va": "val", "te": "test"}[match[1][:2].lower()]


def _patterns(image: FileGroup, label: FileGroup | None) -> tuple[str, Pattern, Pattern | None]:
    """The split, and the patterns of a group of images and of its labels.

    Folders behind the one that tells images from labels belong to {key}, unless one is a split.
    """
    parts = image.parts
    tail = _common(parts, label.parts)[1] if label else 0
    words = [_split_word(part) for part in parts]
    place = next((i for i, word in enumerate(words) if word), None)
    split = "train" if place is None else words[place]
    first = len(parts) - tail  # of the folders that images and labels share at the end
    kept = max(first, place + 1) if place is not None else first
    folders = _with_placeholders(parts[:kept], range(first, kept), place)
    pattern = Pattern(folders, f"{image.ending}{image.suffix}")
    if label is None:
        return split, pattern, None
    shift = len(label.parts) - len(parts)
    own = label.parts[: kept + shift]
    place = None if place is None else place + shift if place >= first else place
    folders = _with_placeholders(own, range(first + shift, kept + shift), place)
    return split, pattern, Pattern(folders, f"{label.ending}{label.suffix}")


def _with_placeholders(
    parts: Sequence[str], shared: range, split_place: int | None
) -> tuple[str, ...]:
    """Folders before a split that images and labels share become {part1}, ...."""
    return tuple(
        f"{{part{i - shared.start + 1}}}" if i in shared and i != split_place else part
        for i, part in enumerate(parts)
    )


def _add_pairs(guess: Guess, pairs: Sequence[tuple[FileGroup, FileGroup]]) -> None:
    """The patterns of all pairs; of several for one split those that match most images."""
    found: dict[str, Counter[tuple[Pattern, Pattern]]] = defaultdict(Counter)
    for image, label in pairs:
        split, *patterns = _patterns(image, label)
        found[split][tuple(patterns)] += len(image.paths.keys() & label.paths.keys())
    for split, counts in found.items():
        merged = _merged(counts)
        (images, labels), count = merged.most_common(1)[0]
        guess.splits[split] = SuggestedSplit(images.text(), labels.text(), count)
        for (images, labels), other in merged.most_common()[1:]:
            guess.notes.append(
                f"{other} pairs of {images.text()} and {labels.text()} need a layout of their own"
            )


def _merged(counts: Counter[tuple[Pattern, Pattern]]) -> Counter[tuple[Pattern, Pattern]]:
    """Patterns that differ in the name of one folder, become one with {folder} there."""
    while True:
        for first in counts:
            for second in counts:
                both = _with_one_folder(first, second)
                if both and first != second:
                    number = counts.pop(first) + counts.pop(second)
                    counts[both] += number
                    break
            else:
                continue
            break
        else:
            return counts


def _with_one_folder(
    first: tuple[Pattern, Pattern], second: tuple[Pattern, Pattern]
) -> tuple[Pattern, Pattern] | None:
    """One pair of patterns for both, with {folder} at the only place where all four differ."""
    if any(
        a.ending != b.ending or len(a.folders) != len(b.folders)
        for a, b in zip(first, second, strict=True)
    ):
        return None
    places = [
        [i for i, (x, y) in enumerate(zip(a.folders, b.folders, strict=True)) if x != y]
        for a, b in zip(first, second, strict=True)
    ]
    if places[0] != places[1] or len(places[0]) != 1:
        return None
    place = places[0][0]
    if first[0].folders[place] != first[1].folders[place]:
        return None
    images, labels = (
        Pattern((*p.folders[:place], f"{{folder{place + 1}}}", *p.folders[place + 1 :]), p.ending)
        for p in first
    )
    return images, labels


def _add_images(
    guess: Guess, groups: Sequence[FileGroup], pairs: Sequence[tuple[FileGroup, FileGroup]]
) -> None:
    """Splits of images without labels: beside those with labels, or all images of the tree."""
    if not groups:
        return
    found: dict[str, list[FileGroup]] = defaultdict(list)
    without = []
    known = {_patterns(image, label)[0] for image, label in pairs}
    for group in groups:
        split = _patterns(group, None)[0]
        if split in known or (pairs and not any(map(_split_word, group.parts))):
            without.append(group)
        else:
            found[split].append(group)
    guess.notes += [f"{text} have no labels" for text in _texts(without)]
    for split, members in found.items():
        folder = os.path.commonpath([group.folder or "." for group in members])
        folders = () if folder in ("", ".") else tuple(folder.split("/"))
        kinds = Counter((group.ending, group.suffix) for group in members)
        ending, suffix = kinds.most_common(1)[0][0]
        ending = ending if all(group.ending == ending for group in members) else ""
        count = sum(len(group.paths) for group in members)
        text = Pattern(folders, f"{ending}{suffix}").text()
        guess.splits[split] = SuggestedSplit(text, None, count)
