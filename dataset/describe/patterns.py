"""Patterns of images and labels (dataset/layouts), from groups of files that belong together."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from dataset.describe.groups import FileGroup, equal_folders

_SPLIT = re.compile(
    r"(?:^|[_\-.])(train(?:ing)?|valid(?:ation)?|val|test(?:ing)?)(?=[_\-.]|$)", re.I
)


class Pattern(NamedTuple):
    """A pattern in parts: folders, and what follows {key}."""

    folders: tuple[str, ...]
    ending: str

    def text(self) -> str:
        return "/".join([*self.folders, "{key}" + self.ending])


def split_word(part: str) -> str | None:
    """The split that the name of a folder tells: "train", "val", "test", or None."""
    match = _SPLIT.search(part)
    return match and {"tr": "train", "va": "val", "te": "test"}[match[1][:2].lower()]


def patterns_of(image: FileGroup, label: FileGroup | None) -> tuple[str, Pattern, Pattern | None]:
    """The split, and the patterns of a group of images and of its labels.

    Folders behind the one that tells images from labels belong to {key}, unless one is a split.
    """
    parts = image.parts
    tail = equal_folders(parts, label.parts)[1] if label else 0
    words = [split_word(part) for part in parts]
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


def merged_patterns(counts: Counter[tuple[Pattern, Pattern]]) -> Counter[tuple[Pattern, Pattern]]:
    """Patterns that differ in the name of one folder, become one with {folder} there.

    Suffixes are not compared: a pattern takes files of any suffix.
    """
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
        a.ending.rpartition(".")[0] != b.ending.rpartition(".")[0]
        or len(a.folders) != len(b.folders)
        for a, b in zip(first, second, strict=True)
    ):
        return None
    places = [
        [i for i, (x, y) in enumerate(zip(a.folders, b.folders, strict=True)) if x != y]
        for a, b in zip(first, second, strict=True)
    ]
    if places == [[], []]:
        return first
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
