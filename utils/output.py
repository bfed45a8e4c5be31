"""Where results go: folders and files that are written whole or not at all, with errors that say the remedy."""

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np

UNFINISHED = ".writing"
"""What the name of a file ends in until it is whole: an interrupted program can leave such files."""


def output_folder(folder: Path) -> Path:
    """Makes ``folder`` and makes sure, before any work is done, that files can be written there. Raises OSError with the remedy."""
    folder = Path(folder)
    probe = folder / UNFINISHED
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)  # another process of an evaluation may look, too
    except OSError as error:
        raise OSError(
            f"Cannot write into {folder} ({error.strerror or error}). Expected a folder, or a place for a new one; choose another."
        ) from error
    return folder


def write_file(path: Path, content: bytes) -> None:
    """Writes ``content`` under a temporary name first, so that ``path`` is whole or what it was before. Raises OSError with the remedy."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}{UNFINISHED}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError as error:
        remove_quietly(temporary)
        raise OSError(f"Could not write {path} ({error.strerror or error}). Make room there, or choose another place.") from error


def remove_quietly(path: Path) -> None:
    """Removes what an error left half written; that it cannot be there must not hide the error."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


def write_json(path: Path, content: Any) -> None:
    """Raises OSError like ``write_file``."""
    write_file(path, (json.dumps(content, indent=1) + "\n").encode())


def write_png(path: Path, image: np.ndarray) -> None:
    """Writes an (H, W, 3) uint8 RGB or (H, W) uint8 picture. Raises OSError like ``write_file``."""
    write_file(path, cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)[1].tobytes())
