"""A prepared root: the tree of the raw one, with decoded images and labels as .npy files.

The journals ``prepared/DATA-I-of-N.jsonl`` describe the images, one journal per data set or split
and shard. The first line says what is prepared. A line for each image is appended once its files
are complete. The last line says that the shard is complete. A journal that was cut by a kill is a
valid, shorter journal, and shards are never merged.
"""

import errno
import itertools
import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dataset.class_set import ClassSet
from dataset.class_set_file import class_set_of
from dataset.label_format import LabelFormat

FOLDER = "prepared"
FORMAT = 1
NPY_HEADER_BYTES = 128
_REMOVED_FIELDS = ("lab_copy", "colors", "colours")
"""Fields of earlier journals (copies in LAB), which are ignored."""
_BATCH = 2048
"""Images whose files are checked at a time."""


class Header(NamedTuple):
    """The first line of a journal.

    ``source``: the raw root. ``command``: the command that makes and completes this part.
    ``upright``: whether images were turned by their EXIF orientation; earlier versions did not.
    ``class_set``: that whose trainIds the labels hold (ClassSet.as_dict); None: they hold labelIds.
    ``encoding``: that of ``class_set`` by which they became trainIds; earlier versions did not say.
    """

    format: int
    data: str
    source: str
    command: str
    upright: bool = False
    class_set: dict | None = None
    encoding: str | None = None

    def as_dict(self) -> dict:
        """The values of the line; ``class_set`` and ``encoding`` where labels hold trainIds."""
        return {key: value for key, value in self._asdict().items() if value is not None}

    def command_for(self, root: Path) -> str:
        """The command that completes ``root``, which may have been moved since it was made."""
        text = re.sub(r" --output=", " --output ", self.command)
        words = shlex.split(text)
        if "--output" not in words[:-1]:
            return self.command
        words[words.index("--output") + 1] = str(root)
        return shlex.join(words)

    def same_labels(self, other: "Header") -> bool:
        """Whether both record the same class set and encoding."""
        return (self.class_set, self.encoding) == (other.class_set, other.encoding)


class PreparedImage(NamedTuple):
    """One prepared image, one line of the journal.

    Paths are relative to the prepared root, those in ``source`` to the raw root.
    """

    name: str
    image: str
    label: str | None
    size: tuple[int, int]
    lab: list[list[float]]
    """Mean and standard deviation of L, a, b."""
    classes: list[int] | None
    """Pixels of each trainId, then unlabelled ones. Where labels hold labelIds: of 19 trainIds."""
    values: list[int] | None
    """The label values that occur."""
    source: dict[str, list[int]]
    """{raw file: its ``file_signature`` when it was read}."""

    @classmethod
    def from_json(cls, values: dict) -> "PreparedImage":
        """The record of a journal line. Raises TypeError for missing or unknown fields."""
        return cls(**{key: value for key, value in values.items() if key not in _REMOVED_FIELDS})

    @property
    def source_image(self) -> str:
        """The raw image, relative to the raw root."""
        return next(iter(self.source), "")

    def files(self) -> dict[str, int]:
        """{file of the prepared root: its size in bytes}."""
        pixels = self.size[0] * self.size[1]
        sizes = {self.image: 3 * pixels + NPY_HEADER_BYTES}
        if self.label is not None:
            sizes[self.label] = pixels + NPY_HEADER_BYTES
        return sizes


def part_path(root: Path, data: str, shard: tuple[int, int]) -> Path:
    return root / FOLDER / f"{data}-{shard[0]}-of-{shard[1]}.jsonl"


def is_prepared(root: Path) -> bool:
    """Whether ``root`` is a prepared root: its folder "prepared" holds journals, or their locks.

    A raw root may hold a prepared one, or any other folder, by this name.
    """
    return any((Path(root) / FOLDER).glob("*-of-*.*"))


def find_parts(root: Path, data: str) -> dict[tuple[int, int], Path]:
    """{(I, N): journal}, sorted."""
    found = {}
    for path in (root / FOLDER).glob(f"{data}-*-of-*.jsonl"):
        match = re.fullmatch(re.escape(data) + r"-(\d+)-of-(\d+)\.jsonl", path.name)
        if match:
            found[int(match[1]), int(match[2])] = path
    return dict(sorted(found.items()))


def read_part(path: Path) -> Iterator[Header | PreparedImage | int]:
    """Reads a journal: a Header, PreparedImages, and the number of images if it is complete.

    A last line without newline was cut by a kill and is ignored. Raises ValueError for any other
    content that is no journal.
    """
    # What is no UTF-8 is no journal either: it must reach the message below.
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file):
            if not line.endswith("\n"):
                return
            try:
                values = json.loads(line)
                if number == 0:
                    header = Header(**values)
                    if header.format != FORMAT:
                        raise ValueError(f"format {header.format}, {FORMAT} is expected")
                    yield header
                elif "complete" in values:
                    yield values["complete"]
                else:
                    yield PreparedImage.from_json(values)
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"{path}, line {number + 1}, is not what scripts.prepare writes ({error})."
                    " Delete this file and run scripts.prepare again."
                ) from error


def batches_of_images(
    lines: Iterator[PreparedImage | int],
) -> Iterator[tuple[list[PreparedImage], bool]]:
    """Yields (images, at_end) of a journal after its header; at_end: the last line was read."""
    while batch := list(itertools.islice(lines, _BATCH)):
        at_end = not isinstance(batch[-1], PreparedImage)
        yield [line for line in batch if isinstance(line, PreparedImage)], at_end


def file_signature(path: Path | str) -> list[int] | None:
    """[size in bytes, time of the last change in ns] of a file; None when it does not exist."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return [status.st_size, status.st_mtime_ns]


def has_size(path: Path | str, size: int) -> bool:
    """Whether a file exists and has ``size`` bytes."""
    return (file_signature(path) or [None])[0] == size


class StoredLabels(NamedTuple):
    """How the raw labels of a part became the trainIds that are stored.

    ``encoding``: None in parts of earlier versions, which did not say it.
    """

    class_set: ClassSet
    encoding: str | None

    @classmethod
    def of(cls, header: Header | None, path: Path) -> "StoredLabels | None":
        """Those of the part ``path``; None where labelIds are stored, or nothing yet."""
        if header is None or header.class_set is None:
            return None
        return cls(class_set_of(header.class_set, "prepared", str(path)), header.encoding)

    def are_of(self, label_format: LabelFormat) -> bool:
        """Whether ``label_format`` makes the same trainIds of the raw labels, as far as known."""
        encoding = self.encoding or label_format.encoding
        wanted = label_format.class_set
        return (
            self.class_set.names == wanted.names
            and encoding in self.class_set.encodings
            and self.class_set.meaning(encoding) == wanted.meaning(label_format.encoding)
        )

    def contradiction(self, class_set: ClassSet, encoding: str | None) -> str | None:
        """The encoding to which ``class_set`` gives other values than were stored by, or None.

        ``encoding``: the one of ``class_set`` that is wanted; None: that of the same name.
        """
        if encoding is not None and self.encoding is not None:
            same = self.class_set.meaning(self.encoding) == class_set.meaning(encoding)
            return None if same else encoding
        names = list(self.class_set.encodings) if self.encoding is None else [self.encoding]
        shared = [name for name in names if name in class_set.encodings]
        other = [n for n in shared if self.class_set.meaning(n) != class_set.meaning(n)]
        return other[0] if other and other == shared else None


def stored_labels(root: Path, data: str) -> dict[Path, StoredLabels]:
    """{journal: how its trainIds were made} of the prepared labels of ``data``; {} for labelIds."""
    parts = find_parts(root, data).values()
    stored = {path: StoredLabels.of(next(read_part(path), None), path) for path in parts}
    return {path: labels for path, labels in stored.items() if labels is not None}


def synchronize(handle: int) -> None:
    """Puts an open file onto the disk, where its file system offers that. Raises OSError."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise
