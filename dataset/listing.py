"""Lists of images and labels of a data set, raw or prepared.

Where the files of each data set lie is in layouts/*.toml.
"""

import copy
import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset.class_set import ClassSet
from dataset.find import LeftOut, walk
from dataset.image_io import image_size
from dataset.label_format import CITYSCAPES_LABELS, LabelFormat
from dataset.name_list import NameFinder, named, read_name_list, say_repeated


def _as_bytes(paths: Sequence[str]) -> np.ndarray:
    """Names or paths as an array of bytes. On Linux a file name need not be UTF-8."""
    return np.array([path.encode("utf-8", "surrogateescape") for path in paths])


def _as_text(path: bytes) -> str:
    """The inverse of ``_as_bytes``, for one element."""
    return path.decode("utf-8", "surrogateescape")


class Frame(NamedTuple):
    """One image of a listing. ``name``: its path below the split, without suffix.

    ``label`` is None where labels are not read.
    """

    name: str
    image: Path
    label: Path | None


class PreparedStatistics(NamedTuple):
    """Measurements by scripts/prepare.py of the n images of a listing, one row each."""

    lab: np.ndarray
    """(n, 2, 3) float64: mean and standard deviation of L, a and b over the whole image."""
    classes: np.ndarray | None = None
    """(n, C + 1) int64: pixels of each trainId, then unlabelled ones; None where not counted."""
    values: np.ndarray | None = None
    """(n,) uint64: bit v is set where the label holds labelId v, bit 63 where it holds 255.

    None without labels, and for labels that are stored as trainIds.
    """

    def subset(self, indices: np.ndarray) -> "PreparedStatistics":
        """The rows at ``indices``, in that order."""
        return PreparedStatistics(*(None if rows is None else rows[indices] for rows in self))


class ImageList:
    """A sequence of Frames.

    Kept as arrays of bytes: 25,000 images take a few MB, which all workers share. ``statistics``:
    measurements of the images of a prepared root; None for a raw one. ``label_format``: how label
    files are read. ``left_out``: names of images that are there, and that the user leaves out.
    ``data_set``: data set, or its split, of which the images are; "" for images of any folder.
    """

    left_out: Sequence[str] = ()
    data_set: str = ""

    def __init__(
        self,
        root: Path,
        names: list[str],
        images: list[str],
        labels: list[str] | None = None,
        statistics: PreparedStatistics | None = None,
        label_format: LabelFormat = CITYSCAPES_LABELS,
    ):
        """``images`` and ``labels`` are paths relative to ``root``.

        ``labels`` None: the listing has no labels, and no label file is ever opened.
        """
        self.root = Path(root)
        self._names, self._images = _as_bytes(names), _as_bytes(images)
        self._labels = None if labels is None else _as_bytes(labels)
        self.statistics, self.label_format = statistics, label_format

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Frame:
        label = None if self._labels is None else self.root / _as_text(self._labels[index])
        image = self.root / _as_text(self._images[index])
        return Frame(_as_text(self._names[index]), image, label)

    @property
    def has_labels(self) -> bool:
        return self._labels is not None

    @property
    def class_set(self) -> ClassSet:
        return self.label_format.class_set

    @property
    def names(self) -> list[str]:
        return [_as_text(name) for name in self._names.tolist()]

    @property
    def identities(self) -> list[str]:
        """The names with their data set, "cityscapes::aachen/..."; without it where unknown."""
        return [f"{self.data_set}::{name}" if self.data_set else name for name in self.names]

    def names_of(self, indices: Iterable[int]) -> list[str]:
        return [self[index].name for index in indices]

    def fingerprint(self) -> str:
        """Number and hash of the names: "COUNT images, HASH".

        Equal for equal names in equal order, wherever the data set lies.
        """
        names = np.array(self._names.tolist())  # as wide as the longest name
        return f"{len(self)} images, {hashlib.sha256(names.tobytes()).hexdigest()[:12]}"

    def select(self, lines: Sequence[str], origin: str | Path) -> "ImageList":
        """The images that ``lines`` of a list name, in that order; each counts once.

        A line holds a name or a path, with or without suffix, perhaps with more columns. Raises
        FileNotFoundError for an unknown name, ValueError for one that fits several images;
        ``origin`` says in it where ``lines`` are from.
        """
        finder = NameFinder(self.names, [_as_text(path) for path in self._images], self.root)
        selection = finder.select(lines, origin)
        if selection.unknown:
            unknown = selection.unknown[0]
            reasons = " It is a prepared root: see prepared/*.txt there for what was left out."
            raise FileNotFoundError(
                f"{origin} names {len(selection.unknown)} of {len(lines)} images that are not under"
                f" {self.root}, the first {unknown!r}; the nearest name there is"
                f" {finder.nearest(unknown)!r}. Correct the list, complete the data set, or remove"
                f" the names from the list.{'' if self.statistics is None else reasons}"
            )
        say_repeated(selection.repeated, origin)
        return self.subset(selection.indices)

    def without(self, words: Sequence[str] | None) -> "ImageList":
        """The images that ``words`` (--leave-out) do not name; its ``left_out`` has the others.

        Words are names, or paths of files (``name_list.named``). Raises ValueError if none is left.
        """
        names = self.names
        left_out = named(words or (), names)
        if not left_out:
            return self
        if len(left_out) == len(names):
            raise ValueError(
                f"--leave-out names all {len(names)} images under {self.root}. Name damaged ones"
                " only."
            )
        left = self.subset(index for index in range(len(names)) if index not in left_out)
        left.left_out = sorted(names[index] for index in left_out)
        return left

    def subset(self, indices: Iterable[int]) -> "ImageList":
        """The images at ``indices``, in that order."""
        chosen = np.array(list(indices))
        part = copy.copy(self)
        part._names, part._images = self._names[chosen], self._images[chosen]
        part._labels = None if self._labels is None else self._labels[chosen]
        part.statistics = None if self.statistics is None else self.statistics.subset(chosen)
        return part

    def with_label_files(
        self, labels: list[str], label_format: LabelFormat = CITYSCAPES_LABELS
    ) -> "ImageList":
        """The same images with other labels, one path each, absolute or relative to the root.

        Statistics of the old labels are dropped.
        """
        other = copy.copy(self)
        other._labels, other.label_format = _as_bytes(labels), label_format
        if self.statistics is not None:
            other.statistics = self.statistics._replace(classes=None, values=None)
        return other


class DataFiles(NamedTuple):
    """The files of a raw data set, or of one split of it, before images and labels are paired.

    All paths are relative to ``root``.
    """

    root: Path
    image_folder: str
    label_folder: str
    images: dict[str, str]
    """{key that an image and its label share: image path}, sorted."""
    labels: dict[str, str]
    """{key: label path}, sorted."""
    ending: str = ""
    """The name of an image in lists is its key with this ending."""
    label_format: LabelFormat = CITYSCAPES_LABELS

    def name(self, key: str) -> str:
        return key + self.ending

    def listing(self, labels: bool, list_file: Path | None = None) -> ImageList:
        """All images, or those that a list names, with their labels or without.

        Raises what ``select_by_list`` raises. With ``labels``: raises FileNotFoundError unless
        these images have labels, and without a list all labels have images.
        """
        names, paths = [self.name(key) for key in self.images], list(self.images.values())
        everything = ImageList(self.root, names, paths, label_format=self.label_format)
        images = select_by_list(everything, list_file)
        if not labels:
            return images
        keys = [name.removesuffix(self.ending) for name in images.names]
        chosen, partners = {key: self.images[key] for key in keys}, self.labels
        if list_file is not None:
            partners = {key: path for key, path in self.labels.items() if key in chosen}
        folders = self.root / self.image_folder, self.root / self.label_folder
        require_pairs(chosen, partners, *folders)
        return images.with_label_files([self.labels[key] for key in keys], self.label_format)


def select_by_list(listing: ImageList, list_file: Path | None) -> ImageList:
    """The images that ``list_file`` names, or all when it is None.

    Raises FileNotFoundError, ValueError.
    """
    return listing if list_file is None else listing.select(read_name_list(list_file), list_file)


def matched_keys(
    images: dict[str, str], labels: dict[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """The same files with keys that fit together, where archives were unpacked too deep.

    Keys in folders of their own (images/images/1.png, labels/10_labels/1.png) become names of files
    alone when this makes pairs of all. Other keys are kept.
    """
    if not images or not labels or images.keys() & labels.keys():
        return images, labels
    short = [{key.rsplit("/", 1)[-1]: path for key, path in f.items()} for f in (images, labels)]
    is_unique = [len(short[0]), len(short[1])] == [len(images), len(labels)]
    if not is_unique or short[0].keys() != short[1].keys():
        return images, labels
    return dict(sorted(short[0].items())), dict(sorted(short[1].items()))


def endings_of(root: Path, folder: str) -> str:
    """The endings of the files below ``root/folder`` with their numbers, as text for errors."""
    counts: Counter[str] = Counter()
    for path in walk(Path(root) / folder, LeftOut()).files:
        name = path.rsplit("/", 1)[-1]
        match = re.search(r"_[A-Za-z]\w*(\.\w+)?$", re.sub(r"^.*(?=_gt|_left)", "", name))
        counts["*" + (match[0] if match else Path(name).suffix or name)] += 1
    kinds = [f"{count} files {ending}" for ending, count in counts.most_common(5)]
    return f" Found there: {', '.join(kinds)}." if kinds else ""


def require_pairs(
    images: dict[str, str], labels: dict[str, str], image_folder: Path, label_folder: Path
) -> None:
    """Raises FileNotFoundError unless every image has a label and every label an image."""
    if images and labels and not images.keys() & labels.keys():
        raise FileNotFoundError(
            f"None of the {len(images)} images under {image_folder} has a label under"
            f" {label_folder}: an image and its label need the same path below these folders. Found"
            f" {next(iter(images.values()))} and {next(iter(labels.values()))}: rename or"
            " move them, or describe their names in a layout, which scripts.describe suggests."
        )
    image_files, label_files = (images, image_folder, "image"), (labels, label_folder, "label")
    for (files, folder, kind), (partners, partner_folder, partner_kind) in (
        (image_files, label_files),
        (label_files, image_files),
    ):
        alone = [path for key, path in files.items() if key not in partners]
        if alone:
            raise FileNotFoundError(
                f"{len(alone)} of {len(files)} {kind}s under {folder} have no {partner_kind} under"
                f" {partner_folder}, the first {alone[0]}. The copy is incomplete: fetch the rest,"
                f" remove these {kind}s, or name the complete pairs in a list (--help)."
            )


def image_sizes(listing: ImageList) -> list[tuple[Path, tuple[int, int]]]:
    """Each image and its (height, width), by the headers of the files.

    Raises what ``image_size`` raises.
    """
    images = [frame.image for frame in listing]
    with ThreadPoolExecutor(16) as pool:
        return list(zip(images, pool.map(image_size, images), strict=True))


def largest_image(listing: ImageList) -> tuple[Path, tuple[int, int]]:
    """The image with the most pixels, and its (height, width); raises like ``image_sizes``."""
    return max(image_sizes(listing), key=lambda pair: math.prod(pair[1]))
