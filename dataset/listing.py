"""A listing: which images (and labels) a data set has. What each data set's tree looks like is in
cityscapes.py and gta5.py.
"""

import copy
import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset.image_io import IMAGE_SUFFIXES, image_size, read_label
from dataset.labels import IGNORE_INDEX, LAST_LABEL_ID, looks_like_train_ids


class Frame(NamedTuple):
    """One image of a listing. ``name`` is its path below the split, without suffix; ``label`` is
    None where labels are not read.
    """

    name: str
    image: Path
    label: Path | None


class PreparedStatistics(NamedTuple):
    """What scripts/prepare.py measured of the n images of a listing, one row each."""

    lab: np.ndarray
    """(n, 2, 3) float64: mean and standard deviation of L, a and b over the whole image."""
    classes: np.ndarray | None = None
    """(n, 20) int64: pixels of each trainId, then of none; None where the listing has no labels."""
    values: np.ndarray | None = None
    """(n,) uint64: bit v is set where the label holds labelId v, the last bit where it holds
    255.
    """
    lab_copies: np.ndarray | None = None
    """(n,) bytes: the LAB copies (color_transfer.LabCopy), relative to the root; None where there
    are none.
    """


class ImageList:
    """A sequence of Frames. Kept as arrays of bytes, not as objects: 25,000 of them cost a few MB,
    shared by all workers.

    ``statistics``: what is known of the images of a prepared root; None for a raw one.
    """

    def __init__(
        self,
        root: Path,
        names: list[str],
        images: list[str],
        labels: list[str] | None = None,
        statistics: PreparedStatistics | None = None,
    ):
        """``images`` and ``labels`` are relative to ``root``; ``labels`` None: the listing has
        none, and no label is ever opened.
        """
        self.root = Path(root)
        self._names = np.array([name.encode() for name in names])
        self._images = np.array([image.encode() for image in images])
        self._labels = None if labels is None else np.array([label.encode() for label in labels])
        self.statistics = statistics

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Frame:
        label = None if self._labels is None else self.root / self._labels[index].decode()
        return Frame(self._names[index].decode(), self.root / self._images[index].decode(), label)

    def lab_copy(self, index: int) -> Path | None:
        """The file of the image's LAB copy, where the prepared root holds such copies."""
        if self.statistics is None or self.statistics.lab_copies is None:
            return None
        return self.root / self.statistics.lab_copies[index].decode()

    @property
    def has_labels(self) -> bool:
        return self._labels is not None

    @property
    def names(self) -> list[str]:
        return [name.decode() for name in self._names.tolist()]

    def names_of(self, indices: Iterable[int]) -> list[str]:
        return [self[index].name for index in indices]

    def fingerprint(self) -> str:
        """The same for the same names in the same order, wherever the data set lies: "COUNT images,
        HASH".
        """
        return f"{len(self)} images, {hashlib.sha256(self._names.tobytes()).hexdigest()[:12]}"

    def subset(self, wanted: Iterable[str], origin: str | Path) -> "ImageList":
        """The frames that ``wanted`` names, in its order; suffixes do not matter. Raises
        FileNotFoundError for a name not here.
        """
        place = {name: index for index, name in enumerate(self.names)}
        wanted = [
            name if name in place else str(Path(name).with_suffix("")) for name in wanted
        ]  # "12.30.00" has no suffix
        absent = [name for name in wanted if name not in place]
        if absent:
            raise FileNotFoundError(
                f"{origin} names {len(absent)} of {len(wanted)} images that are not under"
                f" {self.root}, the first {absent[0]!r}. Complete the data set, or remove the names"
                " from the list."
                + (
                    ""
                    if self.statistics is None
                    else (
                        " It is a prepared root: what was left out of it, and why, is in"
                        " prepared/*.txt there."
                    )
                )
            )
        return self.take([place[name] for name in wanted])

    def take(self, indices: Iterable[int]) -> "ImageList":
        """The frames at ``indices``, in that order."""
        chosen = np.array(list(indices))
        part = copy.copy(self)
        part._names, part._images = self._names[chosen], self._images[chosen]
        part._labels = None if self._labels is None else self._labels[chosen]
        part.statistics = (
            None
            if self.statistics is None
            else PreparedStatistics(
                *(None if fact is None else fact[chosen] for fact in self.statistics)
            )
        )
        return part

    def with_label_files(self, labels: list[str]) -> "ImageList":
        """The same images with other ``labels``, relative to the root or absolute, one for each;
        what is known of the old ones is dropped.
        """
        other = copy.copy(self)
        other._labels = np.array([label.encode() for label in labels])
        other.statistics = (
            None if self.statistics is None else self.statistics._replace(classes=None, values=None)
        )
        return other


class DatasetLayout(NamedTuple):
    """The files of one raw data set, or of one split of it, whether they belong together or not.
    All paths are relative to ``root``.
    """

    root: Path
    image_folder: str
    label_folder: str
    images: dict[str, str]
    """{what an image and its label have in common: the image}, sorted."""
    labels: dict[str, str]
    ending: str = ""
    """An image's name in lists is its key with this ending."""

    def name(self, key: str) -> str:
        return key + self.ending

    def listing(self, labels: bool) -> ImageList:
        """All of it. Raises FileNotFoundError, where ``labels`` are wanted, unless every image has
        a label and every label an image.
        """
        if labels:
            require_pairs(
                self.images,
                self.labels,
                self.root / self.image_folder,
                self.root / self.label_folder,
            )
        names = [self.name(key) for key in self.images]
        return ImageList(
            self.root,
            names,
            list(self.images.values()),
            [self.labels[key] for key in self.images] if labels else None,
        )


def select_by_list(listing: ImageList, list_file: Path | None) -> ImageList:
    """The frames that ``list_file`` names, or all of them where it is None. Raises
    FileNotFoundError, ValueError.
    """
    return listing if list_file is None else listing.subset(read_name_list(list_file), list_file)


def read_name_list(path: Path) -> list[str]:
    """The names in a list file, one a line; blank lines and lines starting with # are skipped.
    Raises FileNotFoundError, ValueError.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"No list at {path}. Expected a text file with one image name per line, like those in"
            " dataset/splits/."
        )
    names = [line.strip() for line in path.read_text().splitlines()]
    names = [name for name in names if name and not name.startswith("#")]
    if not names:
        raise ValueError(f"The list {path} names no image. Expected one image name per line.")
    if len(set(names)) < len(names):
        raise ValueError(
            f"The list {path} names {len(names) - len(set(names))} images twice. Remove the"
            " repetitions."
        )
    return names


def find_files(
    root: Path, folder: str, ending: str, suffixes: Iterable[str] = IMAGE_SUFFIXES
) -> dict[str, str]:
    """Files below ``root/folder`` called ``*{ending}{suffix}``: {path below folder without ending
    and suffix: path below root}, sorted.
    """
    found = {}
    for suffix in suffixes:
        for path in (root / folder).rglob(f"*{ending}{suffix}"):
            relative = path.relative_to(root / folder).as_posix()
            found[relative[: -len(ending + suffix)]] = f"{folder}/{relative}"
    return dict(sorted(found.items()))


def require_pairs(
    images: dict[str, str], labels: dict[str, str], image_folder: Path, label_folder: Path
) -> None:
    """Raises FileNotFoundError unless every image has a label and every label an image."""
    for one, other, here, there, kind in (
        (images, labels, image_folder, label_folder, "image"),
        (labels, images, label_folder, image_folder, "label"),
    ):
        unpaired = [path for key, path in one.items() if key not in other]
        if unpaired:
            counterpart = "label" if kind == "image" else "image"
            raise FileNotFoundError(
                f"{len(unpaired)} of {len(one)} {kind}s under {here} have no {counterpart} under"
                f" {there}, the first {unpaired[0]}. The copy is incomplete: fetch the rest, remove"
                " the unpaired files, or name the complete pairs in a list (--help)."
            )


def check_listing(listing: ImageList, samples: int = 16) -> None:
    """Finds at the start what would stop a run in the middle: pairs of different sizes, trainIds
    instead of labelIds.

    Reads the header of every file and ``samples`` labels, evenly spaced; of a prepared root, where
    every pair was looked at already, only the stored statistics, unless its labels are of another root.
    Raises ValueError or FileNotFoundError.
    """
    if not listing.has_labels:
        return
    if listing.statistics is not None and listing.statistics.values is not None:
        refuse_train_ids(
            values_of(int(np.bitwise_or.reduce(listing.statistics.values))), listing.root
        )
        return
    with ThreadPoolExecutor(16) as pool:
        frames = [listing[index] for index in range(len(listing))]
        sizes = list(
            pool.map(lambda frame: (image_size(frame.image), image_size(frame.label)), frames)
        )
    unequal = [
        (frame, *pair) for frame, pair in zip(frames, sizes, strict=True) if pair[0] != pair[1]
    ]
    if unequal:
        frame, image, label = unequal[0]
        raise ValueError(
            f"{len(unequal)} of {len(frames)} pairs have an image and a label of different sizes,"
            f" the first {frame.image} {image} and {frame.label} {label} (height, width). Remove"
            " these pairs, or leave them out with a list (--help)."
        )
    values = set()
    for index in np.linspace(0, len(listing) - 1, min(samples, len(listing))).round().astype(int):
        values.update(np.unique(read_label(listing[index].label)).tolist())
    label = frames[0].label
    refuse_train_ids(values, listing.root if label.is_relative_to(listing.root) else label.parent)


def mask_of(values: Iterable[int]) -> int:
    """Label values as the bits of one integer: bit v for labelId v, bit 63 for 255."""
    return sum(1 << (63 if value == IGNORE_INDEX else value) for value in set(values))


def values_of(mask: int) -> set[int]:
    """The inverse of ``mask_of``."""
    return {value for value in (*range(LAST_LABEL_ID + 1), IGNORE_INDEX) if mask & mask_of([value])}


def refuse_train_ids(values: set[int], root: Path) -> None:
    """Raises ValueError when the ``values`` of many labels can only be trainIds."""
    if looks_like_train_ids(values):
        raise ValueError(
            f"The labels under {root} hold the values {sorted(values)}: these are trainIds,"
            " labelIds (0-33) are expected. Use the *_gtFine_labelIds.png files of Cityscapes, or"
            " the original label PNGs of GTA5."
        )
