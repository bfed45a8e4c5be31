"""A prepared root, as scripts/prepare.py makes it: the tree of the raw one, with decoded images and
labels as .npy files.

What is known of the images stands in ``prepared/DATA-I-of-N.jsonl``, one journal for each data set
or split and shard. Its first line says what is prepared; then comes a line for every image whose
files are whole, appended when they are; the last line says that the shard is complete. A journal
that a kill cut short is thus a shorter journal, and shards need no merging.
"""

import itertools
import json
import os
import re
from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset.labels import NUM_CLASSES
from dataset.listing import ImageList, PreparedStatistics, mask_of

FOLDER = "prepared"
FORMAT = 1
NPY_HEADER_BYTES = 128


class Header(NamedTuple):
    """The first line of a journal. ``source``: the raw root; ``command``: what makes and completes
    this part.
    """

    format: int
    data: str
    source: str
    command: str


class PreparedImage(NamedTuple):
    """One prepared image, one line of the journal. Paths are relative to the prepared root, those
    in ``source`` to the raw one.
    """

    name: str
    image: str
    label: str | None
    lab_copy: str | None
    colors: int | None
    """Those of the LAB copy."""
    size: tuple[int, int]
    lab: list[list[float]]
    """Mean and standard deviation of L, a, b."""
    classes: list[int] | None
    """Pixels of each of the 19 trainIds, then of none."""
    values: list[int] | None
    """The label values that occur."""
    source: dict[str, list[int]]
    """{raw file: [bytes, time of last change in ns]}: what it was when it was read."""

    def files(self) -> dict[str, int]:
        """{file of the prepared root: its size in bytes}."""
        pixels = self.size[0] * self.size[1]
        sizes = {self.image: 3 * pixels}
        if self.label is not None:
            sizes[self.label] = pixels
        if self.lab_copy is not None:
            sizes[self.lab_copy] = (2 if self.colors <= 1 << 16 else 4) * pixels
            sizes[f"{self.lab_copy.removesuffix('.npy')}_colors.npy"] = 3 * self.colors
        return {path: size + NPY_HEADER_BYTES for path, size in sizes.items()}


def part_path(root: Path, data: str, shard: tuple[int, int]) -> Path:
    return root / FOLDER / f"{data}-{shard[0]}-of-{shard[1]}.jsonl"


def find_parts(root: Path, data: str) -> dict[tuple[int, int], Path]:
    """{(I, N): journal}, sorted."""
    found = {}
    for path in (root / FOLDER).glob(f"{data}-*-of-*.jsonl"):
        match = re.fullmatch(re.escape(data) + r"-(\d+)-of-(\d+)\.jsonl", path.name)
        if match:
            found[int(match[1]), int(match[2])] = path
    return dict(sorted(found.items()))


def read_part(path: Path) -> Iterator[Header | PreparedImage | int]:
    """The lines of a journal: a Header, Records, and at the end of a complete one the number of its
    images.

    A last line without its end was being written when the process was killed: it is as if it were
    not there. Raises ValueError for anything else that is no such journal.
    """
    with open(path) as file:
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
                else:
                    yield values["complete"] if "complete" in values else PreparedImage(**values)
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"{path}, line {number + 1}, is not what scripts.prepare writes ({error})."
                    " Delete this file and run scripts.prepare again."
                ) from error


def file_signature(path: Path | str) -> list[int] | None:
    """[bytes, time of last change in ns] of a file, None where there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return [status.st_size, status.st_mtime_ns]


def prepared_listing(
    root: Path, data: str, labels: bool = True, ending: str = ""
) -> ImageList | None:
    """The listing of ``data`` in a prepared root, in the order of the raw one; None where ``root``
    is no prepared root.

    Raises ValueError when the preparation is incomplete or stale (a source file has changed since),
    FileNotFoundError when ``data``, its labels, or a file of it are not there.
    """
    if not (root / FOLDER).is_dir():
        return None
    names, images, label_files, lab_copies = [], [], [], []
    lab, classes, values = array("d"), array("q"), array("Q")
    for record in _complete_records(
        root, data
    ):  # one by one into arrays: as objects, 25,000 of them would be 75 MB
        names.append(record.name)
        images.append(record.image)
        lab.extend(itertools.chain(*record.lab))
        if record.lab_copy is not None:
            lab_copies.append(record.lab_copy)
        if not labels:
            continue
        if record.label is None:
            raise FileNotFoundError(
                f"{root} was prepared without the labels of {data}. Run scripts.prepare again"
                " without --without-labels."
            )
        label_files.append(record.label)
        classes.extend(record.classes)
        values.append(mask_of(record.values))
    if not names:
        raise ValueError(
            f"{root} is a prepared root in which every image of {data} was left out; why is in"
            f" {FOLDER}/{data}-*.txt there."
        )
    statistics = PreparedStatistics(
        np.array(lab).reshape(-1, 2, 3),
        np.array(classes).reshape(-1, NUM_CLASSES + 1) if labels else None,
        np.array(values) if labels else None,
        np.array([path.encode() for path in lab_copies]) if len(lab_copies) == len(names) else None,
    )
    listing = ImageList(root, names, images, label_files if labels else None, statistics)
    # As the raw listing is sorted: by what the paths of an image and its label have in common.
    return listing.take(
        sorted(range(len(names)), key=lambda index: names[index].removesuffix(ending))
    )


def _complete_records(root: Path, data: str) -> Iterator[PreparedImage]:
    """The records of all shards, unsorted. Raises FileNotFoundError or ValueError, for some faults
    only after the last record.
    """
    parts = find_parts(root, data)
    if not parts:
        held = sorted(
            {path.name.rsplit("-", 3)[0] for path in (root / FOLDER).glob("*-of-*.jsonl")}
        )
        raise FileNotFoundError(
            f"{root} is a prepared root that holds {', '.join(held) or 'nothing yet'}, but not"
            f" {data}. Prepare it too, with the same --output."
        )
    totals = {total for _, total in parts}
    if len(totals) > 1:
        raise ValueError(
            f"{root} holds parts of {data} out of {sorted(totals)} shards. Delete {FOLDER}/{data}-*"
            " there and prepare it again."
        )
    absent = sorted(set(range(1, max(totals) + 1)) - {shard for shard, _ in parts})
    if absent:
        raise ValueError(
            f"{root} is incomplete: of {data}, shard"
            f" {absent[0]}/{max(totals)}{' and others' if absent[1:] else ''} was never prepared."
            f" Run scripts.prepare with --shard {absent[0]}/{max(totals)}."
        )
    with ThreadPoolExecutor(16) as pool:  # for file systems that answer slowly
        for path in parts.values():
            yield from _complete_part(root, path, pool)


def _complete_part(root: Path, path: Path, pool: ThreadPoolExecutor) -> Iterator[PreparedImage]:
    """The records of one journal, each after a look at its files: they must be there, as long as
    they were, made from sources as they still are. A raw root, or files of it, that have gone are
    no objection: a prepared root lives without them.
    """
    lines = read_part(path)
    header = next(lines, None)
    if header is None:
        raise ValueError(f"{root} is incomplete: {path} is empty. Run scripts.prepare again.")
    source = Path(header.source)
    has_source = source.is_dir()

    def damaged_and_stale(records: list[PreparedImage]) -> tuple[list[str], list[str]]:
        damaged, stale = [], []
        for record in records:
            damaged += [
                file
                for file, size in record.files().items()
                if (file_signature(f"{root}/{file}") or [None])[0] != size
            ]
            if has_source:
                stale += [
                    file
                    for file, was in record.source.items()
                    if file_signature(f"{source}/{file}") not in (None, was)
                ]
        return damaged, stale

    count, damaged, stale, complete = 0, [], [], False
    while batch := list(itertools.islice(lines, 2048)):
        complete = not isinstance(batch[-1], PreparedImage)
        records = [line for line in batch if isinstance(line, PreparedImage)]
        for some_damaged, some_stale in pool.map(
            damaged_and_stale,
            (records[start : start + 128] for start in range(0, len(records), 128)),
        ):
            damaged += some_damaged
            stale += some_stale
        count += len(records)
        yield from records
    if not complete:
        raise ValueError(
            f"{root} is incomplete: preparing {path.stem} stopped after {count} images. Go on with:"
            f" {header.command}"
        )
    if damaged:
        raise FileNotFoundError(
            f"{root} is incomplete: {len(damaged)} files are missing or cut short, the first"
            f" {damaged[0]}. Make them again with: {header.command}"
        )
    if stale:
        raise ValueError(
            f"{root} is stale: {len(stale)} files under {source} have changed since they were"
            f" prepared, the first {stale[0]}. Bring it up to date with: {header.command}"
        )
