"""Writes files completely or not at all; errors name the remedy."""

import errno
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
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


def output_file(path: Path, inputs: Iterable[Path] = ()) -> Path:
    """Tests, before the work, that ``path`` is no folder, and that its folder can be written.

    ``inputs``: files and folders that are read: the file is none of them and lies in none. Raises
    OSError.
    """
    path = Path(path)
    if path.is_dir():
        raise OSError(
            f"Cannot write {path}: it is a folder. Expected the name of a file, such as"
            f" {path / 'FILE'}."
        )
    names = (path.resolve(), path.parent.resolve() / path.name)  # of the file, and of a link to it
    for given in inputs:
        real = Path(given).resolve()
        is_inside = real.is_dir() and any(name.is_relative_to(real) for name in names)
        if is_inside or real in names:
            where = f"{'lies in' if is_inside else 'is'} the input {given}"
            raise OSError(f"Cannot write {path}: it {where}. Choose a name outside of the data.")
    output_folder(path.absolute().parent)
    return path


def require_absent(path: Path) -> None:
    """Raises FileExistsError where ``path`` is a file: a run's checkpoint is never overwritten."""
    if Path(path).is_file():
        raise FileExistsError(f"{path} exists. Choose another --output, or move it away.")


def is_full(error: BaseException | None) -> bool:
    """Whether a file could not be written for lack of room."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


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
                _synchronize(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        remove_quietly(temporary)
        raise
    if durable:
        _sync_folder(path.parent)


_NO_SYNC = {
    *(errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF),
    *(errno.EACCES, errno.EPERM, errno.EISDIR),
}
"""Answers of systems that cannot synchronize folders, or anything: Windows, CIFS, some FUSE."""


def _synchronize(handle: int) -> None:
    """fsync, where the file system offers it. Raises OSError when the disk fails."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _sync_folder(folder: Path) -> None:
    """Makes the renaming of a file in ``folder`` itself survive a power cut, where that is
    possible. The file is complete in any case.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno in _NO_SYNC:
            return
        raise
    try:
        _synchronize(handle)
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
        remedy = "Make room there, or choose" if is_full(error) else "Choose"
        raise OSError(
            f"Could not write {path} ({error.strerror or error}). {remedy} another place."
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Writes ``content`` as JSON, atomically; null for values that are not finite. Raises OSError.

    JSON has no NaN and no infinity: jq, JavaScript and others refuse them.
    """
    text = json.dumps(_finite(content), indent=1, allow_nan=False)
    write_file(path, (text + "\n").encode())


def _finite(value: Any) -> Any:
    """``value`` with None in place of every number that is not finite."""
    if isinstance(value, dict):
        return {_finite(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path, expected: str) -> Any:
    """The content of a JSON file. Raises FileNotFoundError, or ValueError for another file.

    ``expected`` says in these what the file should be.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"No file {path}. Expected {expected}.") from error
    except ValueError as error:  # no JSON, or no text
        raise ValueError(f"{path} is no JSON ({error}). Expected {expected}.") from error


def read_json_object(path: Path, keys: Iterable[str], expected: str) -> dict[str, Any]:
    """The object of a JSON file. Raises what ``read_json`` raises, ValueError without ``keys``."""
    content = read_json(path, expected)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {json_kind(content)}. Expected {expected}.")
    missing = [key for key in keys if key not in content]
    if missing:
        found = ", ".join(list(content)[:8]) or "nothing"
        raise ValueError(f"{path} has no {', '.join(missing)}; found {found}. Expected {expected}.")
    return content


def json_kind(value: Any) -> str:
    """A value of a JSON file in words: "a list", "the text 'abc'"."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return f"the text {value!r}" if isinstance(value, str) else json.dumps(value)


def encoded_png(image: np.ndarray) -> bytes:
    """The PNG of a uint8 image, (H, W, 3) RGB or (H, W)."""
    pixels = image[..., ::-1] if image.ndim == 3 else image  # OpenCV writes BGR
    return cv2.imencode(".png", pixels)[1].tobytes()


def write_png(path: Path, image: np.ndarray) -> None:
    """Writes a uint8 image, (H, W, 3) RGB or (H, W), atomically. Raises OSError."""
    write_file(path, encoded_png(image))


def remove_quietly(path: Path) -> None:
    """Removes an incomplete file; a failure to do so must not hide the error before it."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


# Names of results


def output_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Unique output name for each file: its stem, with parent folders or suffix where needed."""
    names = {path: path.stem for path in paths}
    for depth in range(1, 1 + max((len(path.parts) for path in paths), default=0)):
        used = Counter(names.values())
        if len(used) == len(names):
            break
        for path, name in names.items():
            if used[name] > 1:
                parts = path.absolute().with_suffix("").parts[1:]
                names[path] = "_".join(parts[-depth - 1 :])
    used = Counter(names.values())
    return {
        path: name if used[name] == 1 else f"{name}_{path.suffix[1:]}"
        for path, name in names.items()
    }


def told_apart(names: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """``names`` of ``paths``, one each: equal ones get the name of their file, else its path."""
    by_file = [f"{name} ({path.name})" for name, path in zip(names, paths, strict=True)]
    by_path = [f"{name} ({path})" for name, path in zip(names, paths, strict=True)]
    return [
        name if names.count(name) == 1 else short if by_file.count(short) == 1 else long
        for name, short, long in zip(names, by_file, by_path, strict=True)
    ]
