"""Lists of image names, as people have them: any encoding, one or more columns, names or paths."""

import difflib
import json
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dataset.find import print_once, printable

_ENDINGS = (".png", ".jpg", ".jpeg", ".npy")
_LEFT_CAMERA = "_leftImg8bit"
_HEADINGS = {
    *("image", "images", "img", "image_path", "image_name", "image_id", "id"),
    *("file", "files", "filename", "file_name", "path", "name", "names"),
}
"""First words of the first line of a table."""
_JSON = re.compile(r"""\s*(\[\s*["{\[\]]|\{\s*["}])""")
"""How a damaged list in JSON begins."""


def read_name_list(path: Path) -> list[str]:
    """The lines of a list file; empty lines and lines starting with # are skipped.

    UTF-8 or UTF-16, with or without byte order mark; also JSON, see ``_names_of_json``. Raises
    FileNotFoundError, ValueError.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"No list at {path}. Expected a text file with one image name per line, like those in"
            " dataset/splits/."
        )
    text = _decode(path.read_bytes(), path)
    if _is_json(text):
        return _names_of_json(text, path)
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise ValueError(f"The list {path} names no image. Expected one image name per line.")
    return lines


def _is_json(text: str) -> bool:
    """Whether a text is JSON, or begins like it; a name, too, may begin with a bracket."""
    if not text.lstrip().startswith(("[", "{")):
        return False
    try:
        json.loads(text)
    except ValueError:
        return _JSON.match(text) is not None
    return True


def _names_of_json(text: str, path: Path) -> list[str]:
    """The names in a list of BDD100K, Scalabel or COCO, or in a plain array of texts."""
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if isinstance(content, dict):
        content = content.get("frames", content.get("images"))
    entries = content if isinstance(content, list) else []
    names = [
        entry.get("file_name", entry.get("name")) if isinstance(entry, dict) else entry
        for entry in entries
    ]
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"The list {path} looks like JSON, but names no images. Expected one image name per"
            ' line, or JSON: an array of names, or of objects with "name" or "file_name" (also'
            ' under "frames" or "images").'
        )
    return names


def _decode(content: bytes, path: Path) -> str:
    """The text of a list. Bytes that are not UTF-8 stay as they are in file names."""
    if content.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        encoding = "utf-32"
    elif content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif b"\0" in content:  # UTF-16 without mark: every other byte of plain names is 0
        encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    else:
        return content.decode("utf-8-sig", "surrogateescape")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"The list {path} is no text ({error}). Expected one image name per line, in UTF-8."
        ) from error


def named(words: Sequence[str], names: Sequence[str]) -> set[int]:
    """Indices of the ``names`` that ``words`` name: names, or paths of files.

    Folders that a word and a name both have are equal: drive1/0001.png is not drive2/0001.
    """
    words_of = defaultdict(list)  # by the last part of a path
    for word in words:
        for path in (Path(word), Path(word).with_suffix("")):
            words_of[path.name].append(path.parts)

    def is_named(name: str) -> bool:
        own = Path(name).parts
        return any(word[-len(own) :] == own[-len(word) :] for word in words_of.get(own[-1], ()))

    return {index for index, name in enumerate(names) if is_named(name)}


class Selection(NamedTuple):
    """What a list chooses. ``indices``: of images, in the order of the list, each once.

    ``unknown``: lines that name no image. ``repeated``: lines that name an image again.
    """

    indices: list[int]
    unknown: list[str]
    repeated: list[str]


class NameFinder:
    """Finds images by the lines of a list.

    ``names``: of the images, as in listings. ``paths``: of their files below ``root``.
    """

    def __init__(self, names: Sequence[str], paths: Sequence[str], root: Path):
        self.names = names
        self._index = {_as_windows(name): index for index, name in enumerate(names)}
        self._index |= {name: index for index, name in enumerate(names)}
        self._trails = [_parts(os.path.splitext(path)[0]) for path in paths]
        self._root = _parts(os.path.abspath(root))
        self._by_last: dict[str, list[int]] = defaultdict(list)
        for index, trail in enumerate(self._trails):
            for last in {trail[-1], trail[-1].removesuffix(_LEFT_CAMERA)}:
                self._by_last[_normal(last)].append(index)

    def select(self, lines: Sequence[str], origin: str | Path) -> Selection:
        """The images of ``lines``; raises ValueError for a line that fits several images."""
        chosen, unknown, repeated = {}, [], []
        for number, line in enumerate(lines):
            index = self.find(line, origin)
            if index is None:
                words = next(_columns(line, 1), line).lower()
                if number > 0 or words not in _HEADINGS or len(lines) == 1:
                    unknown.append(line)
            elif index in chosen:
                repeated.append(line)
            else:
                chosen[index] = None
        return Selection(list(chosen), unknown, repeated)

    def find(self, line: str, origin: str | Path) -> int | None:
        """The index of the image that ``line`` names; None when there is none."""
        for candidate in _candidates(line):
            if candidate in self._index:
                return self._index[candidate]
        for candidate in dict.fromkeys(_candidates(line)):
            found = self._by_path(candidate)
            if len(found) > 1:
                raise ValueError(
                    f"{origin} names {line!r}, which fits {len(found)} images, such as"
                    f" {self.names[found[0]]} and {self.names[found[1]]}. Give the whole names."
                )
            if found:
                return found[0]
        return None

    def _by_path(self, candidate: str) -> list[int]:
        """Images whose path ends with ``candidate``, or begins where ``candidate`` ends.

        Names of listings have no folder of the data set in front: images/, leftImg8bit/train/.
        """
        given = _parts(candidate)
        if not given:
            return []
        found = []
        for index in self._by_last.get(_normal(given[-1]), []):
            trail = self._trails[index]
            whole = [*self._root, *trail][:-1]
            named = len(_parts(self.names[index])) < len(trail)
            folders = given[:-1]
            is_trail = len(folders) <= len(whole) and folders == whole[len(whole) - len(folders) :]
            is_elsewhere = named and trail[:-1] == folders[len(folders) - len(trail) + 1 :]
            deep = [self._root[-1], *trail[:-1]] if len(trail) > 2 and self._root else None
            is_deep = deep is not None and deep == folders[len(folders) - len(deep) :]
            if is_trail or is_deep or (is_elsewhere and len(folders) >= len(trail) - 1):
                found.append(index)
        return found

    def nearest(self, line: str) -> str:
        """The name that is most like a line that names no image."""
        word = next(iter(_columns(line, 1)), line)
        stem = _without_suffix(_parts(word)[-1]) if _parts(word) else word
        lasts = list(dict.fromkeys(trail[-1] for trail in self._trails))
        close = difflib.get_close_matches(stem, lasts, n=1, cutoff=0.0)
        if not close:
            return self.names[0] if len(self.names) else ""
        return self.names[next(i for i, t in enumerate(self._trails) if t[-1] == close[0])]


def say_repeated(repeated: list[str], origin: str | Path) -> None:
    """Prints once how many lines of a list name an image again."""
    if repeated:
        print_once(
            f"NOTE: {origin} names {len(repeated)} images more than once, the first"
            f" {printable(repeated[0])}: each counts once."
        )


def _candidates(line: str) -> Iterator[str]:
    """Names that a line can mean, the likeliest first."""
    yield from (line, _without_suffix(line))
    texts = [line, line.split(" #")[0].rstrip()]
    for count in range(line.count(" ") + 1, 0, -1):
        texts += _columns(texts[1], count)
    for text in dict.fromkeys(texts):
        for name in dict.fromkeys((text, text.replace("\\", "/"), _as_windows(text))):
            name = name.removeprefix("./")
            yield from (name, _without_suffix(name), os.path.splitext(name)[0])
            yield _normal(_without_suffix(name))
            yield unicodedata.normalize("NFD", _without_suffix(name))


def _columns(line: str, count: int) -> Iterator[str]:
    """The first column of a line by tabs, commas or semicolons, and its first ``count`` words."""
    for mark in ("\t", ",", ";"):
        if mark in line:
            yield line.split(mark)[0].strip().strip("\"'")
    yield " ".join(line.split(" ")[:count]).strip().strip("\"'")


def _as_windows(text: str) -> str:
    """A text in Windows' Western encoding that was not UTF-8; unchanged when it was."""
    content = text.encode("utf-8", "surrogateescape")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")
    return text


def _without_suffix(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in _ENDINGS else name


def _parts(path: str) -> list[str]:
    return [part for part in str(path).replace(os.sep, "/").split("/") if part not in ("", ".")]


def _normal(text: str) -> str:
    """One spelling of accents: macOS stores names with accents as signs of their own."""
    return unicodedata.normalize("NFC", text)
