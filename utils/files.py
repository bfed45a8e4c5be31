"""Where results go: folders and files that are written whole or not at all, with errors that say
the remedy.
"""

import glob
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

UNFINISHED = ".writing"
"""What the name of a file ends in until it is whole: an interrupted program can leave such
files.
"""


def output_folder(folder: Path) -> Path:
    """Makes ``folder`` and makes sure, before any work is done, that files can be written there.
    Raises OSError with the remedy.
    """
    folder = Path(folder)
    probe = folder / UNFINISHED
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)  # another process of an evaluation may look, too
    except OSError as error:
        raise OSError(
            f"Cannot write into {folder} ({error.strerror or error}). Expected a folder, or a place"
            " for a new one; choose another."
        ) from error
    return folder


def write_file(path: Path, content: bytes) -> None:
    """Writes ``content`` under a temporary name first, so that ``path`` is whole or what it was
    before. Raises OSError with the remedy.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}{UNFINISHED}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError as error:
        remove_quietly(temporary)
        raise OSError(
            f"Could not write {path} ({error.strerror or error}). Make room there, or choose"
            " another place."
        ) from error


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
    write_file(
        path, cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)[1].tobytes()
    )


def find_inputs(
    words: Sequence[str], image_suffixes: Sequence[str], video_suffixes: Sequence[str]
) -> tuple[list[Path], list[Path]]:
    """The images and the videos that ``words`` name; other files are skipped with a warning. Raises
    FileNotFoundError, ValueError.
    """
    files: list[Path] = []
    for word in words:
        path = Path(word)
        if path.is_dir():
            files += sorted(file for file in path.rglob("*") if file.is_file())
        elif path.is_file():
            files.append(path)
        else:
            matches = sorted(map(Path, glob.glob(word, recursive=True)))
            if not matches:
                raise FileNotFoundError(
                    f"Nothing at {word}. Expected an image, a video, a folder, or a pattern in"
                    " quotes."
                )
            files += [file for file in matches if file.is_file()]
    files = list(dict.fromkeys(files))
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
            f"No image and no video in {', '.join(words)}. Expected files ending in {expected}."
        )
    return images, videos


def output_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A name for the results of each file: its stem, with as much of its folders before it as keeps
    them apart.
    """
    names = {path: path.stem for path in paths}
    for depth in range(1, 1 + max((len(path.parts) for path in paths), default=0)):
        taken = list(names.values())
        for path, name in names.items():
            if taken.count(name) > 1:
                parts = path.absolute().with_suffix("").parts[1:]
                names[path] = "_".join(parts[-depth - 1 :])
    taken = list(names.values())
    return {
        path: name if taken.count(name) == 1 else f"{name}_{path.suffix[1:]}"
        for path, name in names.items()
    }
