"""Files of a tree in groups: one folder, one ending; and which groups are label maps."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.evenly import evenly
from dataset.label_files import flatness, pixels_of

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


def file_groups(paths: Iterable[str]) -> list[FileGroup]:
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


def joined_suffixes(groups: Iterable[FileGroup]) -> list[FileGroup]:
    """Groups that differ in their suffix only become one: a pattern takes images of any suffix."""
    by_place: dict[tuple[str, str], list[FileGroup]] = defaultdict(list)
    for group in groups:
        by_place[group.folder, group.ending].append(group)
    joined = []
    for (folder, ending), members in by_place.items():
        largest = max(members, key=lambda group: len(group.paths))
        paths = {key: path for group in members for key, path in group.paths.items()}
        joined.append(FileGroup(folder, ending, largest.suffix, paths, largest.is_labels))
    return joined


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
        length = min(equal_at_start(stem[::-1], rest[0][::-1]) for stem in rest)
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


def are_label_maps(root: Path, group: FileGroup) -> bool:
    if group.suffix.lower() != ".png":
        return False
    return all(
        is_label_map(Path(root) / path) for path in evenly(list(group.paths.values()), _OPENED)
    )


def is_label_map(path: Path) -> bool:
    """Whether an image has few values in large areas, in one channel or as colors.

    False for a file that cannot be opened: whoever reads it says what is wrong with it.
    """
    pixels = pixels_of(path)
    if pixels is None or min(pixels.shape[:2]) < _LEAST_SIDE:
        return False
    if pixels.ndim == 3:
        color = pixels[..., : 1 if pixels.shape[2] < 3 else 3].astype(np.int32)
        pixels = color @ np.array([65536, 256, 1][: color.shape[2]], np.int32)
    return bool(flatness(pixels) >= _LEAST_FLAT) and len(np.unique(pixels)) <= _MOST_VALUES


def texts_of(groups: Sequence[FileGroup]) -> list[str]:
    """Numbers of files with an example, one text for all groups of one ending."""
    by_ending: dict[tuple[str, str], list[FileGroup]] = defaultdict(list)
    for group in groups:
        by_ending[group.ending, group.suffix].append(group)
    return [
        f"{sum(len(group.paths) for group in members)} files *{ending}{suffix}, such as"
        f" {next(iter(members[0].paths.values()))},"
        for (ending, suffix), members in by_ending.items()
    ]


def equal_folders(first: Sequence[str], second: Sequence[str]) -> tuple[int, int]:
    """Numbers of equal folders from the front, then from the back."""
    head = equal_at_start(first, second)
    return head, equal_at_start(first[head:][::-1], second[head:][::-1])


def equal_at_start(first: Sequence[str], second: Sequence[str]) -> int:
    """Number of equal elements, or characters, from the start."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))
