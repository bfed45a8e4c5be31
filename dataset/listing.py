"""A listing: which images (and labels) a data set has. What each data set's tree looks like is in cityscapes.py and gta5.py."""

import copy
import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset.files import IMAGE_SUFFIXES, image_size, read_label
from dataset.labels import looks_like_train_ids


class Frame(NamedTuple):
    """One image of a listing. ``name`` is its path below the split, without suffix; ``label`` is None where labels are not read."""

    name: str
    image: Path
    label: Path | None


class Listing:
    """A sequence of Frames. Kept as three arrays of bytes, not as objects: 25,000 of them cost a few MB, shared by all workers."""

    def __init__(self, root: Path, names: list[str], images: list[str], labels: list[str] | None = None):
        """``images`` and ``labels`` are relative to ``root``; ``labels`` None: the listing has none, and no label is ever opened."""
        self.root = Path(root)
        self._names = np.array([name.encode() for name in names])
        self._images = np.array([image.encode() for image in images])
        self._labels = None if labels is None else np.array([label.encode() for label in labels])

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
        """The same for the same names in the same order, wherever the data set lies: "COUNT images, HASH"."""
        return f"{len(self)} images, {hashlib.sha256(self._names.tobytes()).hexdigest()[:12]}"

    def subset(self, wanted: Iterable[str], origin: str | Path) -> "Listing":
        """The frames that ``wanted`` names, in its order; suffixes do not matter. Raises FileNotFoundError for a name not here."""
        place = {name: index for index, name in enumerate(self.names)}
        wanted = [str(Path(name).with_suffix("")) for name in wanted]
        absent = [name for name in wanted if name not in place]
        if absent:
            raise FileNotFoundError(
                f"{origin} names {len(absent)} of {len(wanted)} images that are not under {self.root}, the first {absent[0]!r}. "
                "Complete the data set, or remove the names from the list."
            )
        chosen = np.array([place[name] for name in wanted])
        part = copy.copy(self)
        part._names, part._images = self._names[chosen], self._images[chosen]
        part._labels = None if self._labels is None else self._labels[chosen]
        return part


def restrict(listing: Listing, list_file: Path | None) -> Listing:
    """The frames that ``list_file`` names, or all of them where it is None. Raises FileNotFoundError, ValueError."""
    return listing if list_file is None else listing.subset(read_name_list(list_file), list_file)


def read_name_list(path: Path) -> list[str]:
    """The names in a list file, one a line; blank lines and lines starting with # are skipped. Raises FileNotFoundError, ValueError."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No list at {path}. Expected a text file with one image name per line, like those in dataset/splits/.")
    names = [line.strip() for line in path.read_text().splitlines()]
    names = [name for name in names if name and not name.startswith("#")]
    if not names:
        raise ValueError(f"The list {path} names no image. Expected one image name per line.")
    if len(set(names)) < len(names):
        raise ValueError(f"The list {path} names {len(names) - len(set(names))} images twice. Remove the repetitions.")
    return names


def find_files(folder: Path, ending: str, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> dict[str, str]:
    """Files below ``folder`` called ``*{ending}{suffix}``: {path below folder without ending and suffix: path below folder}, sorted."""
    found = {}
    for suffix in suffixes:
        for path in folder.rglob(f"*{ending}{suffix}"):
            relative = path.relative_to(folder).as_posix()
            found[relative[: -len(ending + suffix)]] = relative
    return dict(sorted(found.items()))


def require_pairs(images: dict[str, str], labels: dict[str, str], image_folder: Path, label_folder: Path) -> None:
    """Raises FileNotFoundError unless every image has a label and every label an image."""
    for one, other, here, there, kind in (
        (images, labels, image_folder, label_folder, "image"),
        (labels, images, label_folder, image_folder, "label"),
    ):
        lonely = [path for key, path in one.items() if key not in other]
        if lonely:
            counterpart = "label" if kind == "image" else "image"
            raise FileNotFoundError(
                f"{len(lonely)} of {len(one)} {kind}s under {here} have no {counterpart} under {there}, the first {lonely[0]}. "
                f"The copy is incomplete: fetch the rest, remove the lonely files, or name the complete pairs in a list (--help)."
            )


def check_listing(listing: Listing, samples: int = 16) -> None:
    """Finds at the start what would stop a run in the middle: pairs of different sizes, trainIds instead of labelIds.

    Reads the header of every file and ``samples`` labels, evenly spaced. Raises ValueError or FileNotFoundError.
    """
    if not listing.has_labels:
        return
    with ThreadPoolExecutor(16) as pool:
        frames = [listing[index] for index in range(len(listing))]
        sizes = list(pool.map(lambda frame: (image_size(frame.image), image_size(frame.label)), frames))
    unequal = [(frame, *pair) for frame, pair in zip(frames, sizes, strict=True) if pair[0] != pair[1]]
    if unequal:
        frame, image, label = unequal[0]
        raise ValueError(
            f"{len(unequal)} of {len(frames)} pairs have an image and a label of different sizes, the first {frame.image} {image} and "
            f"{frame.label} {label} (height, width). Remove these pairs, or leave them out with a list (--help)."
        )
    values = set()
    for index in np.linspace(0, len(listing) - 1, min(samples, len(listing))).round().astype(int):
        values.update(np.unique(read_label(listing[index].label)).tolist())
    if looks_like_train_ids(values):
        raise ValueError(
            f"The labels under {listing.root} hold the values {sorted(values)}: these are trainIds, labelIds (0-33) are expected. "
            "Use the *_gtFine_labelIds.png files of Cityscapes, or the original label PNGs of GTA5."
        )
