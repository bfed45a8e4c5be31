"""Guesses where images and labels lie in a tree of no known layout, from names and contents."""

import difflib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from dataset.describe.groups import (
    FileGroup,
    are_label_maps,
    equal_folders,
    file_groups,
    joined_suffixes,
    texts_of,
)
from dataset.describe.patterns import Pattern, merged_patterns, patterns_of, split_word
from dataset.describe.suggest import SuggestedSplit
from dataset.find import LeftOut, walk
from dataset.image_io import IMAGE_SUFFIXES

_LABEL_NAME = re.compile(r"label|lbl|mask|annot|segm|truth|(?<![a-z])gt(?![a-z])", re.I)


@dataclass
class Guess:
    """What a tree seems to hold.

    ``splits``: {name: patterns}. ``notes``: what else was seen.
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
    groups = file_groups(paths)
    for group in groups:
        group.is_labels = are_label_maps(root, group)
    images = joined_suffixes(group for group in groups if not group.is_labels)
    labels = joined_suffixes(group for group in groups if group.is_labels)
    if not images:
        raise ValueError(
            f"{root} holds {len(paths)} label maps, such as {paths[0]}, and no image. Expected a"
            " folder with images: give the one that holds images and labels."
        )
    blurred = _blurred_labels(images)
    images = [group for group in images if group not in blurred]
    guess.notes += [
        f"{text} are named like labels of other images and are not taken: labels are PNG files of"
        " few values, which JPEG and resizing blur. Find the original ones"
        for text in texts_of(blurred)
    ]
    pairs, alone = _paired(images, labels, root)
    guess.notes += [
        f"{text} look like labels and are not taken: no image has their names, or other labels fit"
        " better"
        for text in texts_of(alone)
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


def _blurred_labels(images: Sequence[FileGroup]) -> list[FileGroup]:
    """Groups of no label maps that are named like labels, of images that have another name."""
    named = [bool(_LABEL_NAME.search(f"{group.folder}/{group.ending}")) for group in images]
    keys = {
        key
        for group, is_named in zip(images, named, strict=True)
        if not is_named
        for key in group.paths
    }
    return [
        group
        for group, is_named in zip(images, named, strict=True)
        if is_named and keys & group.paths.keys()
    ]


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


def _fit(image: FileGroup, label: FileGroup) -> tuple[int, int, float]:
    """How well two groups fit: common keys, common folders, alike folders (train, trainannot)."""
    head, tail = equal_folders(image.parts, label.parts)
    alike = difflib.SequenceMatcher(None, image.folder, label.folder).ratio()
    return len(image.paths.keys() & label.paths.keys()), head + tail, alike


def _plainness(root: Path, group: FileGroup) -> tuple[int, int, int]:
    """Labels of indices before colors, 8 bits before 16; many classes before a mask of one."""
    with Image.open(Path(root) / next(iter(group.paths.values()))) as image:
        kind = {"P": 3, "L": 3, "1": 3, "RGB": 2, "RGBA": 2}.get(image.mode, 1)
        pixels = np.asarray(image)
    values = np.unique(pixels.reshape(-1, pixels.shape[2] if pixels.ndim == 3 else 1), axis=0)
    return kind, len(values), -len(group.ending)


def _add_pairs(guess: Guess, pairs: Sequence[tuple[FileGroup, FileGroup]]) -> None:
    """The patterns of all pairs; of several for one split those that match most images."""
    found: dict[str, Counter[tuple[Pattern, Pattern]]] = defaultdict(Counter)
    for image, label in pairs:
        split, *patterns = patterns_of(image, label)
        found[split][tuple(patterns)] += len(image.paths.keys() & label.paths.keys())
    for split, counts in found.items():
        merged = merged_patterns(counts).most_common()
        (images, labels), count = merged[0]
        guess.splits[split] = SuggestedSplit(images.text(), labels.text(), count)
        for (images, labels), other in merged[1:]:
            guess.notes.append(
                f"{other} pairs of {images.text()} and {labels.text()} need a layout of their own"
            )


def _add_images(
    guess: Guess, groups: Sequence[FileGroup], pairs: Sequence[tuple[FileGroup, FileGroup]]
) -> None:
    """Splits of images without labels: beside those with labels, or all images of the tree."""
    if not groups:
        return
    found: dict[str, list[FileGroup]] = defaultdict(list)
    without = []
    known = {patterns_of(image, label)[0] for image, label in pairs}
    for group in groups:
        split = patterns_of(group, None)[0]
        if split in known or (pairs and not any(map(split_word, group.parts))):
            without.append(group)
        else:
            found[split].append(group)
    guess.notes += [f"{text} have no labels" for text in texts_of(without)]
    for split, members in found.items():
        folder = os.path.commonpath([group.folder or "." for group in members])
        folders = () if folder in ("", ".") else tuple(folder.split("/"))
        kinds = Counter((group.ending, group.suffix) for group in members)
        ending, suffix = kinds.most_common(1)[0][0]
        ending = ending if all(group.ending == ending for group in members) else ""
        count = sum(len(group.paths) for group in members)
        text = Pattern(folders, f"{ending}{suffix}").text()
        guess.splits[split] = SuggestedSplit(text, None, count)
