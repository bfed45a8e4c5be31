"""Makes a prepared root (see journal.py): checks, decodes and measures every pair, in parallel.

A pair is added to the journal when its files are complete.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from dataset.find import printable
from dataset.image_io import image_size, is_turned
from dataset.labels import looks_like_train_ids
from dataset.listing_check import has_class, refuse_label_values
from dataset.prepared.check import Pair, Problem, prepare_pair, write_error
from dataset.prepared.job import PrepareJob, PrepareReport, match_pairs
from dataset.prepared.journal import (
    NPY_HEADER_BYTES,
    Header,
    PreparedImage,
    StoredLabels,
    batches_of_images,
    file_signature,
    find_parts,
    has_size,
    part_path,
    read_part,
    stored_labels,
    synchronize,
)
from dataset.prepared.workers import in_processes

_BLOCK_BYTES, _JOURNAL_LINE_BYTES = 4096, 1024
"""Upper bounds of what a file takes on disk beyond its size, and of an image's line."""


def check(job: PrepareJob) -> PrepareReport:
    """Checks everything once and writes nothing."""
    pairs, problems = match_pairs(job)
    report = PrepareReport(job.data, job.counted_classes.names, problems)
    work = partial(prepare_pair, root=job.tree.root, label_format=job.label_format)
    results = in_processes(pairs, work, job.workers)
    for result in _with_progress(results, f"checking {job.data}", len(pairs)):
        if isinstance(result, PreparedImage):
            report.add(result)
        else:
            report.problems += result
    try:
        refuse_label_values(report.values, job.tree.root, job.label_format, report.classes)
    except ValueError as error:
        are_train_ids = job.stored_classes is None and looks_like_train_ids(report.values)
        is_empty = not has_class(report.values, job.label_format)
        kind = "no class" if is_empty else "unknown label values"
        kind = "trainIds" if are_train_ids else kind
        report.problems.append(Problem(kind, job.tree.label_folder, str(error)))
    return report


def prepare(
    job: PrepareJob,
    output: Path,
    command: str,
    lock: Callable[[Path], AbstractContextManager] = nullcontext,
) -> PrepareReport:
    """Prepares every image that is not prepared yet or has changed, and completes the journal.

    ``command``: the command line that does this, for error messages of later readers.
    ``lock(path)`` locks a file for this process (utils.locks.FileLock); default: no lock. Raises
    BlockingIOError when another process prepares the same part, FileExistsError when ``output``
    holds other data, OSError when the disk is too small, full or not writable, ValueError when the
    labels are trainIds throughout.
    """
    output, root = Path(output), job.tree.root.resolve()
    journal = part_path(output, job.data, job.shard)
    _require_compatible_output(job, output, journal)
    with _exclusive(journal, lock):
        # What is there, what is missing, and whether it fits onto the disk.
        pairs, problems = match_pairs(job)
        report = PrepareReport(job.data, job.counted_classes.names, problems)
        header = job.header(root, command)
        done, is_new = reuse_valid(job, output, journal, header, report)
        todo = [pair for pair in pairs if pair.name not in done]
        _require_space(job, todo, output)
        if not todo and not is_new:
            _new_journal(journal).unlink()
            return report
        # From here on the new journal is the journal.
        scratch = journal.with_suffix(".writing")
        try:
            shutil.rmtree(scratch, ignore_errors=True)  # left by an interrupted run
            scratch.mkdir()
            os.replace(_new_journal(journal), journal)
            file = open(journal, "a", encoding="utf-8")  # noqa: SIM115 (closed below)
        except OSError as error:
            raise write_error(journal, error) from error
        with file:
            # Each pair gets its line when its files are complete; the last line says that all are.
            work = partial(
                prepare_pair,
                root=root,
                output=output,
                scratch=scratch,
                label_format=job.label_format,
            )
            results = in_processes(todo, work, job.workers)
            title = f"preparing {job.data}"
            for result in _with_progress(results, title, len(todo), len(done)):
                if isinstance(result, PreparedImage):
                    _append(file, result._asdict())
                    report.add(result)
                    report.made += 1
                else:
                    report.problems += result
            refuse_label_values(report.values, root, job.label_format, report.classes)
            _append(file, {"complete": report.good})
            synchronize(file.fileno())
        shutil.rmtree(scratch, ignore_errors=True)
    return report


def write_report(output: Path, job: PrepareJob, text: str) -> None:
    """Writes the report beside the journal, which tells later why images were left out."""
    path = part_path(output, job.data, job.shard).with_suffix(".txt")
    try:
        path.write_text(printable(text) + "\n", encoding="utf-8")
    except OSError as error:
        raise write_error(path, error) from error


def gigabytes(count: int) -> str:
    """A number of bytes as text, in GB or MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _require_compatible_output(job: PrepareJob, output: Path, journal: Path) -> None:
    """Raises FileExistsError when ``output`` cannot hold this part."""
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
    totals = {total for _, total in find_parts(output, job.data)} - {job.shard[1]}
    if totals:
        raise FileExistsError(
            f"{output} holds {job.data} in {totals.pop()} shards, not in {job.shard[1]}. Give the"
            " same N in --shard I/N as before, or choose another --output."
        )
    header = next(read_part(journal), None) if journal.exists() else None
    stored = next((s.class_set for s in stored_labels(output, job.data).values()), None)
    sets = (stored, job.stored_classes)
    before, now = (None if classes is None else classes.names for classes in sets)
    if header is not None and before != now and (job.labels or before is not None):
        names = [
            "labelIds of Cityscapes" if classes is None else f"the classes of {classes.name}"
            for classes in sets
        ]
        raise FileExistsError(
            f"{output} was prepared with {names[0]}, not with"
            f" {names[1] if job.labels else 'images alone'}. Give the same class set,"
            " or choose another --output."
        )
    if header is not None and Path(header.source) != root:
        raise FileExistsError(
            f"{output} was prepared from {header.source}, not from {root}. Give the same root, or"
            " choose another --output."
        )


@contextmanager
def _exclusive(journal: Path, lock: Callable[[Path], AbstractContextManager]) -> Iterator[None]:
    """Locks a part for one process. Raises BlockingIOError, OSError."""
    path = journal.with_suffix(".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = lock(path)
    except BlockingIOError as error:
        raise BlockingIOError(
            f"Another process is preparing {path.stem} in {path.parents[1]}. Wait for it, or stop"
            " it."
        ) from error
    except OSError as error:
        raise write_error(path, error) from error
    with held:
        yield


def _new_journal(journal: Path) -> Path:
    """The file that replaces the journal."""
    return journal.with_suffix(".new")


def reuse_valid(
    job: PrepareJob, output: Path, journal: Path, header: Header, report: PrepareReport
) -> tuple[set[str], bool]:
    """Copies the valid images of an earlier journal into a new one.

    Returns their names, and whether the new journal differs from the earlier one. Adds the images,
    and problems of images that were deleted, to ``report``. Raises OSError.
    """
    tree, done, count, complete = job.tree, set(), 0, False
    sources = {
        tree.name(key): [image, tree.labels.get(key) if job.labels else None]
        for key, image in tree.images.items()
    }

    def is_valid(record: PreparedImage) -> bool:
        raw_files = [path for path in sources.get(record.name, []) if path is not None]
        return bool(
            (not job.labels or (record.label and has_labels_of_job))
            and raw_files
            and all(file_signature(tree.root / raw) == record.source.get(raw) for raw in raw_files)
            and all(has_size(output / path, size) for path, size in record.files().items())
            and (was_upright or not is_turned(tree.root / record.source_image))
        )

    old = read_part(journal) if journal.exists() else iter(())
    old_header = next(old, None)
    was_upright = old_header is not None and old_header.upright
    stored = StoredLabels.of(old_header, journal)
    has_labels_of_job = stored is None or stored.are_of(job.label_format)
    try:
        # Threads: network file systems answer slowly.
        with (
            ThreadPoolExecutor(16) as pool,
            open(_new_journal(journal), "w", encoding="utf-8") as new,
        ):
            new.write(json.dumps(header.as_dict()) + "\n")
            for records, at_end in batches_of_images(old):
                complete = at_end
                count += len(records)
                for record, valid in zip(records, pool.map(is_valid, records), strict=True):
                    if valid:
                        new.write(json.dumps(record._asdict()) + "\n")
                        done.add(record.name)
                        report.add(record)
                    elif record.name not in sources:
                        file = next(iter(record.source))
                        text = (
                            f"{tree.root / file} does not exist any more: it is left out now. Fetch"
                            f" it again, or delete {output / record.image}."
                        )
                        report.problems.append(Problem("missing", file, text))
            new.flush()
            synchronize(new.fileno())
    except OSError as error:
        raise write_error(_new_journal(journal), error) from error
    as_before = old_header is not None and header.same_labels(old_header)
    return done, not (complete and was_upright and as_before) or count != len(done)


def _append(file: TextIO, line: dict) -> None:
    """Appends a line to a journal. Raises OSError."""
    try:
        file.write(json.dumps(line) + "\n")
        file.flush()
    except OSError as error:
        raise write_error(Path(file.name), error) from error


def _require_space(job: PrepareJob, pairs: list[Pair], output: Path) -> None:
    """Prints the disk space that ``pairs`` need. Raises OSError when less is free."""
    files, bytes_per_pixel = (2, 3 + 1) if job.labels else (1, 3)

    def size(pair: Pair) -> int:
        try:
            height, width = image_size(job.tree.root / pair.image)
        except (OSError, ValueError):
            return 0  # it will be left out, and reported
        overhead = files * (NPY_HEADER_BYTES + _BLOCK_BYTES) + _JOURNAL_LINE_BYTES
        return height * width * bytes_per_pixel + overhead

    with ThreadPoolExecutor(16) as pool:
        needed = sum(pool.map(size, pairs))
    free = shutil.disk_usage(output).free
    print(
        f"{len(pairs)} images of {job.data} to prepare into {output}: {gigabytes(needed)} needed,"
        f" {gigabytes(free)} free."
    )
    if needed > free:
        raise OSError(
            f"The disk of {output} has {gigabytes(free)} free; {len(pairs)} images need"
            f" {gigabytes(needed)} decoded. Free some space, choose an --output on another disk,"
            " prepare fewer images with --list, or train on the raw root."
        )


def _with_progress(results: Iterator, title: str, count: int, done: int = 0) -> Iterator:
    return tqdm(
        results,
        total=done + count,
        initial=done,
        desc=title,
        unit="image",
        disable=None,
        dynamic_ncols=True,
    )
