"""Checks one image and its label, measures them, and writes them as .npy files."""

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from dataset.image_io import read_image
from dataset.label_format import CITYSCAPES_LABELS, LabelFormat
from dataset.label_io import LabelValuesError
from dataset.labels import IGNORE_INDEX, looks_like_train_ids
from dataset.prepared.journal import NPY_HEADER_BYTES, PreparedImage, file_signature, synchronize
from dataset.style.lab import lab_statistics

KINDS = (
    *("missing", "unreadable", "different sizes", "unknown label values", "trainIds", "no class"),
    "two of one name",
)


class Pair(NamedTuple):
    """An image and its label to prepare, as paths relative to the raw root."""

    name: str
    image: str
    label: str | None


class Problem(NamedTuple):
    """The reason for leaving out a file.

    ``kind`` is one of KINDS, ``file`` relative to the raw root, ``text`` explains the
    remedy.
    """

    kind: str
    file: str
    text: str


def prepare_pair(
    pair: Pair,
    root: Path,
    output: Path | None = None,
    scratch: Path | None = None,
    label_format: LabelFormat = CITYSCAPES_LABELS,
) -> PreparedImage | list[Problem]:
    """Checks and measures a pair, and writes it below ``output`` unless that is None.

    ``scratch``: folder for files that are not complete yet. LabelIds are stored as they are, and
    counted for the 19 classes of Cityscapes, so that one copy serves all class sets. Faults of the
    pair are returned as Problems; raises OSError only when writing fails.
    """
    # Before reading: a change during the reading must count as a change.
    paths = [path for path in (pair.image, pair.label) if path is not None]
    source = {path: file_signature(root / path) for path in paths}
    image, problems = _try(read_image, root, pair.image)
    label = None
    if pair.label is not None:
        label, label_problems = _try(label_format.read, root, pair.label)
        problems += label_problems
    if problems:
        return problems
    classes = values = None
    if label is not None:
        counts = np.bincount(label.ravel(), minlength=256)
        values = np.flatnonzero(counts).tolist()
        is_label_ids = label_format.holds_label_ids
        problem = _problem_of_label(
            pair, root, label, image.shape[:2], values if is_label_ids else []
        )
        if problem is not None:
            return [problem]
        counted = CITYSCAPES_LABELS if is_label_ids else label_format
        number = len(counted.class_set)
        by_class = np.bincount(np.minimum(counted.train_id_of, number), counts, number + 1)
        classes = by_class.astype(np.int64).tolist()
    record = PreparedImage(
        name=pair.name,
        image=_npy_path(pair.image),
        label=None if label is None else _label_npy_path(pair),
        size=image.shape[:2],
        lab=[statistic.tolist() for statistic in lab_statistics(image)],
        classes=classes,
        values=values,
        source=source,
    )
    if output is not None:
        _save(output / record.image, image, scratch)
        if label is not None:
            _save(output / record.label, label, scratch)
    return record


def _problem_of_label(
    pair: Pair, root: Path, label: np.ndarray, image_size: tuple[int, int], values: list[int]
) -> Problem | None:
    """The reason why a label that can be read is refused, or None."""
    if label.shape != image_size:
        text = (
            f"{root / pair.image} is {image_size} and {root / pair.label} is {label.shape}"
            " (height, width); expected equal sizes. Fetch both again, or leave the pair out."
        )
        return Problem("different sizes", pair.image, text)
    # Few ids of one label alone prove nothing; those of trainIds come with 255.
    if looks_like_train_ids(set(values)) and IGNORE_INDEX in values:
        text = (
            f"{root / pair.label} holds trainIds, labelIds (0-34) are expected. Use the original"
            " label file."
        )
        return Problem("trainIds", pair.label, text)
    return None


def _try(
    read: Callable[[Path], np.ndarray], root: Path, path: str
) -> tuple[np.ndarray | None, list[Problem]]:
    """Reads a file: (array, []) or (None, [the problem])."""
    try:
        return read(root / path), []
    except LabelValuesError as error:
        return None, [Problem("unknown label values", path, str(error))]
    except FileNotFoundError as error:  # deleted since it was listed, or a broken link
        return None, [Problem("missing", path, str(error))]
    except ValueError as error:
        return None, [Problem("unreadable", path, str(error))]
    except OSError as error:
        return None, [Problem("unreadable", path, f"{root / path} cannot be read ({error}).")]


def _npy_path(path: str) -> str:
    """images/1.png -> images/1.npy"""
    return PurePosixPath(path).with_suffix(".npy").as_posix()


def _label_npy_path(pair: Pair) -> str:
    """labels/1.png -> labels/1.npy; a/1.png beside the image a/1.jpg -> a/1.png.npy"""
    path = _npy_path(pair.label)
    return f"{pair.label}.npy" if path == _npy_path(pair.image) else path


def _save(path: Path, array: np.ndarray, scratch: Path) -> None:
    """Writes an .npy file so that ``path`` is complete or absent, also after a kill or power cut.

    Raises OSError.
    """
    temporary = scratch / f"{os.getpid()}.npy"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            np.lib.format.write_array_header_1_0(
                file, np.lib.format.header_data_from_array_1_0(array)
            )
            if file.tell() != NPY_HEADER_BYTES:
                raise ValueError(
                    f"This numpy writes an .npy header of {file.tell()} bytes for {array.shape};"
                    f" {NPY_HEADER_BYTES} are expected."
                )
            file.write(np.ascontiguousarray(array).data)
            file.flush()
            synchronize(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError) -> OSError:
    """The error to raise when ``path`` could not be written."""
    return OSError(
        f"Could not write {path}: {error.strerror or error}. Expected a writable folder with free"
        " space; free some or choose another --output. The files prepared until now are complete:"
        " give the same command again to continue."
    )
