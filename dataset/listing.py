"""Lists of images and labels of a data set, raw or prepared.

The folder layout of each data set is in cityscapes.py, gta5.py and synthia.py.
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
    """(n, 20) int64: pixels of each trainId, then unlabelled ones; None without labels."""
    values: np.ndarray | None = None
    """(n,) uint64: bit v is set where the label holds labelId v, bit 63 where it holds 255."""

    def subset(self, indices: np.ndarray) -> "PreparedStatistics":
        """The rows at ``indices``, in that order."""
        return PreparedStatistics(*(None if rows is None else rows[indices] for rows in self))


class ImageList:
    """A sequence of Frames.

    Kept as arrays of bytes: 25,000 images take a few MB, which all workers share. ``statistics``:
    measurements of the images of a prepared root; None for a raw one.
    """

    def __init__(
        self,
        root: Path,
        names: list[str],
        images: list[str],
        labels: list[str] | None = None,
        statistics: PreparedStatistics | None = None,
    ):
        """``images`` and ``labels`` are paths relative to ``root``.

        ``labels`` None: the listing has no labels, and no label file is ever opened.
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

    @property
    def has_labels(self) -> bool:
        return self._labels is not None

    @property
    def names(self) -> list[str]:
        return [name.decode() for name in self._names.tolist()]

    def names_of(self, indices: Iterable[int]) -> list[str]:
        return [self[index].name for index in indices]

    def fingerprint(self) -> str:
        """Number and hash of the names: "COUNT images, HASH".

        Equal for equal names in equal order, wherever the data set lies.
        """
        return f"{len(self)} images, {hashlib.sha256(self._names.tobytes()).hexdigest()[:12]}"

    def select(self, names: Iterable[str], origin: str | Path) -> "ImageList":
        """The images called ``names``, in that order; suffixes are ignored.

        Raises FileNotFoundError for an unknown name; ``origin`` says in it where ``names`` are
        from.
        """
        index_of = {name: index for index, name in enumerate(self.names)}
        # First as it stands: "12.30.00" has no suffix.
        names = [name if name in index_of else str(Path(name).with_suffix("")) for name in names]
        unknown = [name for name in names if name not in index_of]
        if unknown:
            reasons = " It is a prepared root: see prepared/*.txt there for what was left out."
            raise FileNotFoundError(
                f"{origin} names {len(unknown)} of {len(names)} images that are not under"
                f" {self.root}, the first {unknown[0]!r}. Complete the data set, or remove the"
                f" names from the list.{'' if self.statistics is None else reasons}"
            )
        return self.subset(index_of[name] for name in names)

    def subset(self, indices: Iterable[int]) -> "ImageList":
        """The images at ``indices``, in that order."""
        chosen = np.array(list(indices))
        part = copy.copy(self)
        part._names, part._images = self._names[chosen], self._images[chosen]
        part._labels = None if self._labels is None else self._labels[chosen]
        part.statistics = None if self.statistics is None else self.statistics.subset(chosen)
        return part

    def with_label_files(self, labels: list[str]) -> "ImageList":
        """The same images with other labels, one path each, absolute or relative to the root.

        Statistics of the old labels are dropped.
        """
        other = copy.copy(self)
        other._labels = np.array([label.encode() for label in labels])
        if self.statistics is not None:
            other.statistics = self.statistics._replace(classes=None, values=None)
        return other


class DatasetLayout(NamedTuple):
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

    def name(self, key: str) -> str:
        return key + self.ending

    def listing(self, labels: bool) -> ImageList:
        """All images, with their labels or without.

        With ``labels``: raises FileNotFoundError unless images and labels are complete pairs.
        """
        if labels:
            image_folder, label_folder = (
                self.root / self.image_folder,
                self.root / self.label_folder,
            )
            require_pairs(self.images, self.labels, image_folder, label_folder)
        return ImageList(
            self.root,
            [self.name(key) for key in self.images],
            list(self.images.values()),
            [self.labels[key] for key in self.images] if labels else None,
        )


def select_by_list(listing: ImageList, list_file: Path | None) -> ImageList:
    """The images that ``list_file`` names, or all when it is None.

    Raises FileNotFoundError, ValueError.
    """
    return listing if list_file is None else listing.select(read_name_list(list_file), list_file)


def read_name_list(path: Path) -> list[str]:
    """The names in a list file, one per line; empty lines and lines starting with # are skipped.

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
    """Files ``*{ending}{suffix}`` below ``root/folder``, sorted: {key: path below root}.

    The key is the path below the folder, without ending and suffix.
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


def check_listing(listing: ImageList, samples: int = 16) -> None:
    """Checks a labelled listing before a run: sizes of pairs, and labelIds instead of trainIds.

    Reads the header of every file and ``samples`` evenly spaced labels. Every pair of a prepared
    root was checked already: only its stored values are read, unless its labels are of another
    root. Raises ValueError or FileNotFoundError.
    """
    if not listing.has_labels:
        return
    if listing.statistics is not None and listing.statistics.values is not None:
        refuse_train_ids(
            values_of(int(np.bitwise_or.reduce(listing.statistics.values))), listing.root
        )
        return
    _require_equal_sizes(listing)
    values = set()
    for index in np.linspace(0, len(listing) - 1, min(samples, len(listing))).round().astype(int):
        values.update(np.unique(read_label(listing[index].label)).tolist())
    label = listing[0].label
    refuse_train_ids(values, listing.root if label.is_relative_to(listing.root) else label.parent)


def _require_equal_sizes(listing: ImageList) -> None:
    """Raises ValueError when an image and its label differ in size, by the headers of the files."""
    frames = [listing[index] for index in range(len(listing))]
    with ThreadPoolExecutor(16) as pool:
        image_sizes = pool.map(image_size, [frame.image for frame in frames])
        label_sizes = pool.map(image_size, [frame.label for frame in frames])
        triples = list(zip(frames, image_sizes, label_sizes, strict=True))
    unequal = [(frame, image, label) for frame, image, label in triples if image != label]
    if unequal:
        frame, image, label = unequal[0]
        raise ValueError(
            f"{len(unequal)} of {len(frames)} pairs have an image and a label of different sizes,"
            f" the first {frame.image} {image} and {frame.label} {label} (height, width). Remove"
            " these pairs, or leave them out with a list (--help)."
        )


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
