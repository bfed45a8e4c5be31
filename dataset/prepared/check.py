"""Looking at one image and its label: are they sound, what do they hold? And writing them down as
arrays.
"""

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import cv2
import numpy as np

from dataset.image_io import LabelValuesError, read_image, read_label
from dataset.labels import IGNORE_INDEX, NUM_CLASSES, TRAIN_ID_OF, looks_like_train_ids
from dataset.prepared.journal import NPY_HEADER_BYTES, PreparedImage, file_signature
from dataset.style.lab import LabCopy, lab_statistics

KINDS = ("missing", "unreadable", "different sizes", "unknown label values", "trainIds")


class Pair(NamedTuple):
    """What is to be prepared: an image and its label, relative to the raw root."""

    name: str
    image: str
    label: str | None


class Problem(NamedTuple):
    """Why a file was left out: one of KINDS, the file relative to the raw root, and a sentence with
    the remedy.
    """

    kind: str
    file: str
    text: str


def prepare_pair(
    pair: Pair,
    root: Path,
    output: Path | None = None,
    scratch: Path | None = None,
    lab_copy: bool = False,
) -> PreparedImage | list[Problem]:
    """Checks, decodes and measures a pair; writes it below ``output`` by way of the folder
    ``scratch``, or nowhere.

    Raises OSError only where writing fails: what is wrong with the pair is returned.
    """
    paths = [path for path in (pair.image, pair.label) if path is not None]
    source = {
        path: file_signature(root / path) for path in paths
    }  # before the reading: what changes meanwhile shall count as changed
    image, problems = _try(read_image, root, pair.image)
    label, label_problems = (None, []) if pair.label is None else _try(read_label, root, pair.label)
    problems += label_problems
    if problems:
        return problems
    classes = values = None
    if label is not None:
        if label.shape != image.shape[:2]:
            text = (
                f"{root / pair.image} is {image.shape[:2]} and {root / pair.label} is {label.shape}"
                " (height, width); expected equal sizes. Fetch both again, or leave the pair out."
            )
            return [Problem("different sizes", pair.image, text)]
        counts = np.bincount(label.ravel(), minlength=256)
        values = np.flatnonzero(counts).tolist()
        if (
            looks_like_train_ids(set(values)) and IGNORE_INDEX in values
        ):  # no labelId annotation stores 255
            text = (
                f"{root / pair.label} holds trainIds, labelIds (0-33) are expected. Use the"
                " original label file."
            )
            return [Problem("trainIds", pair.label, text)]
        by_class = np.bincount(np.minimum(TRAIN_ID_OF, NUM_CLASSES), counts, NUM_CLASSES + 1)
        classes = by_class.astype(np.int64).tolist()
    copy = LabCopy.of(cv2.cvtColor(image, cv2.COLOR_RGB2LAB)) if lab_copy else None
    record = PreparedImage(
        name=pair.name,
        image=_npy(pair.image),
        label=None if label is None else _npy(pair.label),
        lab_copy=None if copy is None else _npy(pair.image, "_lab"),
        colors=None if copy is None else len(copy.colors),
        size=image.shape[:2],
        lab=[values.tolist() for values in lab_statistics(image)],
        classes=classes,
        values=values,
        source=source,
    )
    if output is not None:
        _save(output / record.image, image, scratch)
        if label is not None:
            _save(output / record.label, label, scratch)
        if copy is not None:
            _save(output / record.lab_copy, copy.index, scratch)
            _save(LabCopy.colors_path(output / record.lab_copy), copy.colors, scratch)
    return record


def _try(
    read: Callable[[Path], np.ndarray], root: Path, path: str
) -> tuple[np.ndarray | None, list[Problem]]:
    try:
        return read(root / path), []
    except LabelValuesError as error:
        return None, [Problem("unknown label values", path, str(error))]
    except FileNotFoundError as error:  # gone since it was listed, or a link to nowhere
        return None, [Problem("missing", path, str(error))]
    except (ValueError, OSError) as error:
        return None, [
            Problem(
                "unreadable",
                path,
                (
                    f"{error}"
                    if isinstance(error, ValueError)
                    else f"{root / path} cannot be read ({error})."
                ),
            )
        ]


def _npy(path: str, ending: str = "") -> str:
    """images/1.png -> images/1.npy, or with an ending for the first folder, images_lab/1.npy."""
    first, *rest = PurePosixPath(path).with_suffix(".npy").parts
    return PurePosixPath(first + ending, *rest).as_posix()


def _save(path: Path, array: np.ndarray, scratch: Path) -> None:
    """Writes ``array`` so that ``path`` never holds half of it, neither after a kill nor after a
    power cut.
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
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError) -> OSError:
    """The error to raise where ``path`` could not be written."""
    return OSError(
        f"Could not write {path}: {error.strerror or error}. Expected a writable folder with free"
        " space; free some or choose another --output. What was prepared so far is whole: give the"
        " same command again and it goes on from there."
    )
