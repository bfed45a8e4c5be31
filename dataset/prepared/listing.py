"""The listing of a prepared root, which must be complete and up to date."""

import itertools
from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from dataset.find import print_once, printable
from dataset.image_io import is_turned
from dataset.label_format import LabelFormat
from dataset.listing import ImageList, PreparedStatistics
from dataset.listing_check import mask_of
from dataset.prepared.journal import (
    FOLDER,
    Header,
    PreparedImage,
    batches_of_images,
    file_signature,
    find_parts,
    has_size,
    read_part,
)


def prepared_listing(
    root: Path, data: str, labels: bool, ending: str, label_format: LabelFormat
) -> ImageList:
    """The listing of ``data`` in a prepared root, in the order of the raw one.

    ``ending``: of all names, which the keys of the raw files lack. ``label_format``: how the labels
    are read. Raises ValueError when the prepared root is incomplete or stale (a source file has
    changed), FileNotFoundError when ``data``, its labels, or one of its files is missing.
    """
    names, images, label_files = [], [], []
    lab, classes, values = array("d"), array("q"), array("Q")
    # Into arrays one by one: as objects, 25,000 images would take 75 MB.
    for record in _complete_records(root, data):
        names.append(record.name)
        images.append(record.image)
        lab.extend(itertools.chain(*record.lab))
        if not labels:
            continue
        if record.label is None:
            raise FileNotFoundError(
                f"{root} was prepared without the labels of {data}. Run scripts.prepare again"
                " without --without-labels."
            )
        label_files.append(record.label)
        classes.extend(record.classes)
        if label_format.holds_label_ids:
            values.append(mask_of(record.values))
    if not names:
        raise ValueError(
            f"{root} is a prepared root in which every image of {data} was left out; see"
            f" {FOLDER}/{data}-*.txt there for the reasons."
        )
    counts = np.array(classes).reshape(len(names), -1) if labels else None  # (n, C + 1)
    if labels and label_format.holds_label_ids:
        counts = label_format.class_counts(counts)
    statistics = PreparedStatistics(
        np.array(lab).reshape(-1, 2, 3), counts, np.array(values) if values else None
    )
    files = label_files if labels else None
    listing = ImageList(root, names, images, files, statistics, label_format)
    # The order of the raw listing: by the key that an image and its label share.
    return listing.subset(
        sorted(range(len(names)), key=lambda index: names[index].removesuffix(ending))
    )


def _complete_records(root: Path, data: str) -> Iterator[PreparedImage]:
    """The images of all shards, unsorted.

    Raises FileNotFoundError or ValueError, for some faults only after the last image.
    """
    parts = find_parts(root, data)
    if not parts:
        journals = (root / FOLDER).glob("*-of-*.jsonl")
        present = sorted({path.name.rsplit("-", 3)[0] for path in journals})
        raise FileNotFoundError(
            f"{root} is a prepared root that holds {', '.join(present) or 'nothing yet'}, but not"
            f" {data}. Prepare it too, with the same --output; a split without labels needs"
            " --splits and --without-labels."
        )
    totals = {total for _, total in parts}
    if len(totals) > 1:
        raise ValueError(
            f"{root} holds parts of {data} out of {sorted(totals)} shards. Delete {FOLDER}/{data}-*"
            " there and prepare it again."
        )
    total = totals.pop()
    absent = sorted(set(range(1, total + 1)) - {shard for shard, _ in parts})
    if absent:
        raise ValueError(
            f"{root} is incomplete: of {data}, shard {absent[0]}/{total}"
            f"{' and others' if absent[1:] else ''} was never prepared. Run scripts.prepare with"
            f" --shard {absent[0]}/{total}."
        )
    with ThreadPoolExecutor(16) as pool:  # threads: network file systems answer slowly
        for path in parts.values():
            yield from _complete_part(root, path, pool)


def _complete_part(root: Path, path: Path, pool: ThreadPoolExecutor) -> Iterator[PreparedImage]:
    """The images of one journal, whose files are checked: present, complete and up to date.

    Raw files, or a whole raw root, that do not exist any more are no fault: a prepared root does
    not need them.
    """
    lines = read_part(path)
    header = next(lines, None)
    if header is None:
        raise ValueError(f"{root} is incomplete: {path} is empty. Run scripts.prepare again.")
    source = Path(header.source)
    has_source = source.is_dir()
    sideways: list[str] = []
    photographs: list[str] = []

    def damaged_and_stale(records: list[PreparedImage]) -> tuple[list[str], list[str]]:
        damaged, stale = [], []
        for record in records:
            if not header.upright and is_turned(source / record.source_image):
                sideways.append(record.source_image)
            sizes, signatures = record.files(), record.source if has_source else {}
            damaged += [file for file in sizes if not has_size(f"{root}/{file}", sizes[file])]
            for file, signature in signatures.items():
                if file_signature(f"{source}/{file}") not in (None, signature):
                    stale.append(file)
        return damaged, stale

    # Images are yielded while their files are checked; what is wrong is raised after the last one.
    count, damaged, stale, complete = 0, [], [], False
    for records, at_end in batches_of_images(lines):
        complete = at_end
        chunks = (records[start : start + 128] for start in range(0, len(records), 128))
        for damaged_files, stale_files in pool.map(damaged_and_stale, chunks):
            damaged += damaged_files
            stale += stale_files
        count += len(records)
        unknown = not has_source and not header.upright
        photographs += [r.source_image for r in records if unknown and _is_photograph(r)]
        yield from records
    _say_unknown_orientation(root, source, photographs)
    if not complete:
        raise ValueError(
            f"{root} is incomplete: preparing {path.stem} stopped after {count} images. Go on with:"
            f" {header.command_for(root)}"
        )
    if damaged:
        raise FileNotFoundError(
            f"{root} is incomplete: {len(damaged)} files are missing or cut short, the first"
            f" {damaged[0]}. Make them again with: {header.command_for(root)}"
        )
    _require_upright(header, root, sideways)
    if stale:
        raise ValueError(
            f"{root} is stale: {len(stale)} files under {source} have another size or time of"
            f" change than when they were prepared, the first {stale[0]}: they were changed, or"
            " copied anew. Prepare these again, the others are kept:"
            f" {header.command_for(root)}"
        )


def _require_upright(header: Header, root: Path, sideways: list[str]) -> None:
    """Raises ValueError for images that an earlier version left on their side."""
    if sideways:
        raise ValueError(
            f"{root} is stale: it was prepared by an earlier version, which left {len(sideways)}"
            f" images of {header.source} as the camera was turned (EXIF orientation), the first"
            f" {min(sideways)}. Prepare them again with: {header.command_for(root)}"
        )


def _say_unknown_orientation(root: Path, source: Path, photographs: list[str]) -> None:
    """Prints once that ``photographs`` of an earlier version cannot be compared."""
    if photographs:
        print_once(
            f"NOTE: {root} was prepared by an earlier version, which did not turn images by their"
            f" EXIF orientation, and {source} is gone: of {len(photographs)} photographs, such as"
            f" {printable(photographs[0])}, some may lie on their side. Look at them."
        )


def _is_photograph(record: PreparedImage) -> bool:
    """Whether an image may have an orientation: PNGs of data sets have none."""
    return not record.source_image.lower().endswith(".png")
