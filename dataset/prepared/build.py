"""Making a prepared root (see prepared.py): every pair is checked, decoded and measured once, in
parallel, and journalled when whole.
"""

import fcntl
import itertools
import json
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TextIO

import numpy as np
from tqdm import tqdm

from dataset.image_io import image_size
from dataset.labels import NUM_CLASSES
from dataset.listing import DatasetLayout, refuse_train_ids
from dataset.prepared.check import Pair, Problem, prepare_pair, write_error
from dataset.prepared.journal import (
    FORMAT,
    NPY_HEADER_BYTES,
    Header,
    PreparedImage,
    file_signature,
    find_parts,
    part_path,
    read_part,
)
from dataset.prepared.workers import in_processes


class PrepareJob(NamedTuple):
    """What is to be prepared, or only checked.

    ``data``: "gta5", "synthia", "cityscapes-train" or "cityscapes-val"; ``wanted``: only these
    names, out of the list ``origin``; ``shard`` (I, N): the I-th of N parts; ``lab_copies``: store
    the images in LAB too.
    """

    tree: DatasetLayout
    data: str
    labels: bool = True
    lab_copies: bool = False
    wanted: list[str] | None = None
    origin: str = ""
    shard: tuple[int, int] = (1, 1)
    workers: int = 1

    def has(self, name: str) -> bool:
        """Whether the shard has the image: by its name, not by its place, so that it keeps it when
        others are added.
        """
        return zlib.crc32(name.encode()) % self.shard[1] == self.shard[0] - 1


@dataclass
class PrepareReport:
    """What a pass found. ``good`` images are sound (and prepared), ``made`` of them in this
    pass.
    """

    data: str
    good: int = 0
    made: int = 0
    problems: list[Problem] = field(default_factory=list)
    classes: np.ndarray = field(default_factory=lambda: np.zeros(NUM_CLASSES + 1, np.int64))
    """Pixels of each trainId, then of none."""
    sizes: Counter = field(default_factory=Counter)
    values: set[int] = field(default_factory=set)
    bytes: int = 0

    def add(self, record: PreparedImage) -> None:
        self.good += 1
        self.sizes[tuple(record.size)] += 1
        self.bytes += sum(record.files().values())
        if record.classes is not None:
            self.classes += record.classes
            self.values.update(record.values)


def match_pairs(job: PrepareJob) -> tuple[list[Pair], list[Problem]]:
    """The complete pairs of the shard, and every file or name in the list that has no
    counterpart.
    """
    tree = job.tree
    chosen = (
        None
        if job.wanted is None
        else {str(PurePosixPath(name).with_suffix("")) for name in job.wanted}
    )
    keys = sorted(
        key
        for key in {*tree.images, *tree.labels}
        if job.has(tree.name(key)) and (chosen is None or tree.name(key) in chosen)
    )
    pairs, problems = [], []
    for key in keys:
        image, label = tree.images.get(key), tree.labels.get(key) if job.labels else None
        if image is None and label is not None:
            where = tree.root / tree.image_folder
            problems.append(
                Problem(
                    "missing",
                    label,
                    f"{tree.root / label} has no image under {where}. Fetch the image, or remove"
                    " the label.",
                )
            )
        elif label is None and job.labels:
            where = tree.root / tree.label_folder
            problems.append(
                Problem(
                    "missing",
                    image,
                    f"{tree.root / image} has no label under {where}. Fetch the label, or remove"
                    " the image.",
                )
            )
        elif image is not None:
            pairs.append(Pair(tree.name(key), image, label))
    for name in sorted((chosen or set()) - {tree.name(key) for key in keys}):
        if job.has(name):
            text = (
                f"{job.origin} names {name}, which is not under {tree.root}. Complete the data set,"
                " or remove the name."
            )
            problems.append(Problem("missing", name, text))
    return pairs, problems


def check(job: PrepareJob) -> PrepareReport:
    """One pass over everything that writes nothing."""
    pairs, problems = match_pairs(job)
    report = PrepareReport(job.data, problems=problems)
    for result in _with_progress(
        in_processes(pairs, partial(prepare_pair, root=job.tree.root), job.workers),
        f"checking {job.data}",
        len(pairs),
    ):
        if isinstance(result, PreparedImage):
            report.add(result)
        else:
            report.problems += result
    try:
        refuse_train_ids(report.values, job.tree.root)
    except ValueError as error:
        report.problems.append(Problem("trainIds", job.tree.label_folder, str(error)))
    return report


def prepare(
    job: PrepareJob, output: Path, command: str, say: Callable[[str], None] = print
) -> PrepareReport:
    """Prepares what is not prepared yet, or has changed since, and completes the journal of the
    part. ``command``: how a user would.

    Raises BlockingIOError when another process prepares the same part, FileExistsError when
    ``output`` holds something that does not agree, OSError when the disk is too small, full or not
    writable, ValueError when the labels are trainIds throughout.
    """
    output, root = Path(output), job.tree.root.resolve()
    journal = part_path(output, job.data, job.shard)
    _require_fitting_output(job, output, journal)
    with _only_process(journal):
        pairs, problems = match_pairs(job)
        report = PrepareReport(job.data, problems=problems)
        done, renewed = reuse_valid(
            job, output, journal, Header(FORMAT, job.data, str(root), command), report
        )
        todo = [pair for pair in pairs if pair.name not in done]
        _require_space(job, todo, output, say)
        if not todo and not renewed:
            _new(journal).unlink()
            return report
        scratch = journal.with_suffix(".writing")
        try:
            shutil.rmtree(scratch, ignore_errors=True)  # what an interrupted run was writing
            scratch.mkdir()
            os.replace(_new(journal), journal)
            file = open(journal, "a")  # noqa: SIM115 (closed below)
        except OSError as error:
            raise write_error(journal, error) from error
        with file:
            work = partial(
                prepare_pair, root=root, output=output, scratch=scratch, lab_copy=job.lab_copies
            )
            for result in _with_progress(
                in_processes(todo, work, job.workers), f"preparing {job.data}", len(todo), len(done)
            ):
                if isinstance(result, PreparedImage):
                    _append(file, result._asdict())
                    report.add(result)
                    report.made += 1
                else:
                    report.problems += result
            refuse_train_ids(report.values, root)
            _append(file, {"complete": report.good})
            os.fsync(file.fileno())
        shutil.rmtree(scratch, ignore_errors=True)
    return report


def write_report(output: Path, job: PrepareJob, text: str) -> None:
    """Leaves the report beside the journal, so that what was left out can be looked up later."""
    path = part_path(output, job.data, job.shard).with_suffix(".txt")
    try:
        path.write_text(text + "\n")
    except OSError as error:
        raise write_error(path, error) from error


def gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _require_fitting_output(job: PrepareJob, output: Path, journal: Path) -> None:
    root = job.tree.root.resolve()
    if output.resolve() == root:
        raise FileExistsError(
            f"--output {output} is the raw root itself. Choose another folder: the prepared root"
            " has the same tree."
        )
    if output.exists() and not output.is_dir():
        raise FileExistsError(
            f"{output} is a file; expected a folder or a new name. Choose another --output."
        )
    others = {total for _, total in find_parts(output, job.data)} - {job.shard[1]}
    if others:
        raise FileExistsError(
            f"{output} holds {job.data} in {others.pop()} shards, not in {job.shard[1]}. Give the"
            " same N in --shard I/N as before, or choose another --output."
        )
    header = next(read_part(journal), None) if journal.exists() else None
    if header is not None and Path(header.source) != root:
        raise FileExistsError(
            f"{output} was prepared from {header.source}, not from {root}. Give the same root, or"
            " choose another --output."
        )


@contextmanager
def _only_process(journal: Path) -> Iterator[None]:
    """Holds a part for one process: by a lock of the process, not of the file, so that workers do
    not keep it when the parent is killed.
    """
    path = journal.with_suffix(".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise write_error(path, error) from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BlockingIOError(
                f"Another process is preparing {path.stem} in {path.parents[1]}. Wait for it, or"
                " stop it."
            ) from error
        yield


def _new(journal: Path) -> Path:
    return journal.with_suffix(".new")


def reuse_valid(
    job: PrepareJob, output: Path, journal: Path, header: Header, report: PrepareReport
) -> tuple[set[str], bool]:
    """Copies what is still valid of the journal into a new one: the names, and whether the new one
    differs from the old.
    """
    tree, done, lines, complete = job.tree, set(), 0, False
    sources = {
        tree.name(key): [image, tree.labels.get(key) if job.labels else None]
        for key, image in tree.images.items()
    }

    def valid(record: PreparedImage) -> bool:
        has_all = (record.label or not job.labels) and (record.lab_copy or not job.lab_copies)
        wanted = [path for path in sources.get(record.name, []) if path is not None]
        unchanged = wanted and all(
            file_signature(tree.root / path) == record.source.get(path) for path in wanted
        )
        return bool(
            has_all
            and unchanged
            and all(
                (file_signature(output / path) or [None])[0] == size
                for path, size in record.files().items()
            )
        )

    old = read_part(journal) if journal.exists() else iter(())
    next(old, None)  # its header
    try:
        with (
            ThreadPoolExecutor(16) as pool,
            open(_new(journal), "w") as new,
        ):  # threads for file systems that answer slowly
            new.write(json.dumps(header._asdict()) + "\n")
            while batch := list(itertools.islice(old, 2048)):
                complete = not isinstance(batch[-1], PreparedImage)
                records = [line for line in batch if isinstance(line, PreparedImage)]
                lines += len(records)
                for record, is_valid in zip(records, pool.map(valid, records), strict=True):
                    if is_valid:
                        new.write(json.dumps(record._asdict()) + "\n")
                        done.add(record.name)
                        report.add(record)
                    elif record.name not in sources:
                        file = next(iter(record.source))
                        text = (
                            f"{tree.root / file} has gone since it was prepared: left out now."
                            f" Fetch it again, or delete {output / record.image}."
                        )
                        report.problems.append(Problem("missing", file, text))
            new.flush()
            os.fsync(new.fileno())
    except OSError as error:
        raise write_error(_new(journal), error) from error
    return done, not complete or lines != len(done)


def _append(file: TextIO, line: dict) -> None:
    try:
        file.write(json.dumps(line) + "\n")
        file.flush()
    except OSError as error:
        raise write_error(Path(file.name), error) from error


def _require_space(
    job: PrepareJob, pairs: list[Pair], output: Path, say: Callable[[str], None]
) -> None:
    """Says how much disk ``pairs`` will take. Raises OSError when there is less."""
    bytes_a_pixel = [3] + [1] * job.labels + [4] * job.lab_copies  # a copy takes 2 or 4

    def size(pair: Pair) -> int:
        try:
            height, width = image_size(job.tree.root / pair.image)
        except (OSError, ValueError):
            return 0  # it will be left out, and reported
        return (
            height * width * sum(bytes_a_pixel)
            + len(bytes_a_pixel) * (NPY_HEADER_BYTES + 4096)
            + 1024
        )  # a block is 4096 bytes, a record 1024

    with ThreadPoolExecutor(16) as pool:
        needed = sum(pool.map(size, pairs))
    free = shutil.disk_usage(output).free
    say(
        f"{len(pairs)} images of {job.data} to prepare into {output}: {gigabytes(needed)} needed,"
        f" {gigabytes(free)} free."
    )
    if needed > free:
        raise OSError(
            f"The disk of {output} has {gigabytes(free)} free; {len(pairs)} images need"
            f" {gigabytes(needed)} decoded. Free some space, choose an --output on another disk,"
            " prepare fewer images with --list, or train on the raw root."
        )


def _with_progress(results: Iterator, description: str, count: int, before: int = 0) -> Iterator:
    return tqdm(
        results,
        total=before + count,
        initial=before,
        desc=description,
        unit="image",
        disable=None,
        dynamic_ncols=True,
    )
