"""Writes files completely or not at all, and finds input files; errors name the remedy."""

import glob
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np

UNFINISHED = ".writing"
"""Suffix of files that are being written; an interrupted program can leave some."""


# Output


def output_folder(folder: Path) -> Path:
    """Creates ``folder`` and tests that files can be written there; raises OSError if not."""
    folder = Path(folder)
    probe = folder / UNFINISHED
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)  # another process of an evaluation may have removed it
    except OSError as error:
        raise OSError(
            f"Cannot write into {folder} ({error.strerror or error}). Expected a folder, or a place"
            " for a new one; choose another."
        ) from error
    return folder


@contextmanager
def atomic_file(path: Path, durable: bool = False) -> Iterator[BinaryIO]:
    """A file to write into: in the end ``path`` is complete, or unchanged if there was an error.

    ``durable``: the file is on the disk before it gets its name, and survives a power cut.
    """
    temporary = path.with_name(f".{path.name}{UNFINISHED}")
    try:
        with open(temporary, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        remove_quietly(temporary)
        raise
    if durable:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Makes the renaming of a file in ``folder`` itself survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path: Path, content: bytes, durable: bool = False) -> None:
    """Writes ``content`` atomically: ``path`` is complete, or unchanged. Raises OSError.

    ``durable``: see ``atomic_file``.
    """
    path = Path(path)
    try:
        with atomic_file(path, durable) as file:
            file.write(content)
    except OSError as error:
        raise OSError(
            f"Could not write {path} ({error.strerror or error}). Make room there, or choose"
            " another place."
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Writes ``content`` as JSON, atomically. Raises OSError."""
    write_file(path, (json.dumps(content, indent=1) + "\n").encode())


def write_png(path: Path, image: np.ndarray) -> None:
    """Writes a uint8 image, (H, W, 3) RGB or (H, W), atomically. Raises OSError."""
    pixels = image[..., ::-1] if image.ndim == 3 else image  # OpenCV writes BGR
    write_file(path, cv2.imencode(".png", pixels)[1].tobytes())


def remove_quietly(path: Path) -> None:
    """Removes an incomplete file; a failure to do so must not hide the error before it."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


# Input


def find_inputs(
    patterns: Sequence[str], image_suffixes: Sequence[str], video_suffixes: Sequence[str]
) -> tuple[list[Path], list[Path]]:
    """Finds images and videos; ``patterns`` are files, folders or glob patterns.

    Other files are skipped with a warning. Raises FileNotFoundError for a pattern without files,
    ValueError if there is neither image nor video.
    """
    files = list(dict.fromkeys(file for pattern in patterns for file in _find_files(pattern)))
    images = [file for file in files if file.suffix.lower() in image_suffixes]
    videos = [file for file in files if file.suffix.lower() in video_suffixes]
    for file in files:
        if file not in images and file not in videos:
            print(
                f"WARNING: {file} skipped: neither an image ({', '.join(image_suffixes)}) nor a"
                f" video ({', '.join(video_suffixes)})."
            )
    if not images and not videos:
        expected = ", ".join((*image_suffixes, *video_suffixes))
        raise ValueError(
            f"No image and no video in {', '.join(patterns)}. Expected files ending in {expected}."
        )
    return images, videos


def _find_files(pattern: str) -> list[Path]:
    path = Path(pattern)
    if path.is_file():
        return [path]
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    matches = sorted(map(Path, glob.glob(pattern, recursive=True)))
    if not matches:
        raise FileNotFoundError(
            f"Nothing at {pattern}. Expected an image, a video, a folder, or a pattern in quotes."
        )
    return [file for file in matches if file.is_file()]


def output_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Unique output name for each file: its stem, with parent folders or suffix where needed."""
    names = {path: path.stem for path in paths}
    for depth in range(1, 1 + max((len(path.parts) for path in paths), default=0)):
        used = list(names.values())
        for path, name in names.items():
            if used.count(name) > 1:
                parts = path.absolute().with_suffix("").parts[1:]
                names[path] = "_".join(parts[-depth - 1 :])
    used = list(names.values())
    return {
        path: name if used.count(name) == 1 else f"{name}_{path.suffix[1:]}"
        for path, name in names.items()
    }
