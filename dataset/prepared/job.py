"""What one pass of preparing is about: the images of a job, their pairs, and its report."""

import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset.class_set import ClassSet
from dataset.label_format import CITYSCAPES_LABELS, LabelFormat
from dataset.listing import DataFiles
from dataset.name_list import NameFinder, say_repeated
from dataset.prepared.check import Pair, Problem
from dataset.prepared.journal import FORMAT, Header, PreparedImage


class PrepareJob(NamedTuple):
    """The images to prepare, or only to check.

    ``data``: "gta5", "synthia", "cityscapes-train", ... ``wanted``: only these names, from the list
    ``origin``; None: all. ``shard`` (I, N): the I-th of N parts. ``workers``: number of processes.
    """

    tree: DataFiles
    data: str
    labels: bool = True
    wanted: list[str] | None = None
    origin: str = ""
    shard: tuple[int, int] = (1, 1)
    workers: int = 1

    @property
    def label_format(self) -> LabelFormat:
        return self.tree.label_format

    @property
    def stored_classes(self) -> ClassSet | None:
        """The class set whose trainIds are stored; None where labelIds are."""
        return None if self.label_format.holds_label_ids else self.label_format.class_set

    @property
    def counted_classes(self) -> ClassSet:
        """The class set whose pixels are counted."""
        return self.stored_classes or CITYSCAPES_LABELS.class_set

    def header(self, root: Path, command: str) -> Header:
        """The first line of the journal."""
        header = Header(FORMAT, self.data, str(root), command, upright=True)
        if self.stored_classes is None:
            return header
        encoding = self.label_format.encoding
        return header._replace(class_set=self.stored_classes.as_dict(), encoding=encoding)

    def in_shard(self, name: str) -> bool:
        """Whether the image belongs to the shard: by its name, so other images never move it."""
        number = zlib.crc32(name.encode("utf-8", "surrogateescape"))
        return number % self.shard[1] == self.shard[0] - 1


@dataclass
class PrepareReport:
    """The result of a pass.

    ``good``: number of images without fault (and prepared); ``made``: prepared in this pass.
    """

    data: str
    class_names: tuple[str, ...]
    problems: list[Problem] = field(default_factory=list)
    good: int = 0
    made: int = 0
    classes: np.ndarray = field(init=False)
    """Pixels of each trainId, then unlabelled ones."""
    sizes: Counter = field(default_factory=Counter)
    values: set[int] = field(default_factory=set)
    bytes: int = 0

    def __post_init__(self):
        self.classes = np.zeros(len(self.class_names) + 1, np.int64)

    def add(self, record: PreparedImage) -> None:
        self.good += 1
        self.sizes[tuple(record.size)] += 1
        self.bytes += sum(record.files().values())
        if record.classes is not None:
            self.classes += record.classes
            self.values.update(record.values)


def match_pairs(job: PrepareJob) -> tuple[list[Pair], list[Problem]]:
    """Complete pairs of the shard, and a problem for each file or listed name without partner."""
    tree = job.tree
    names = {key: tree.name(key) for key in sorted({*tree.images, *tree.labels})}
    names, problems = _wanted(job, names)
    names = {key: name for key, name in names.items() if job.in_shard(name)}
    pairs = []

    def missing(file: str, text: str) -> None:
        problems.append(Problem("missing", file, text))

    for key, name in names.items():
        image, label = tree.images.get(key), tree.labels.get(key) if job.labels else None
        if image is None and label is not None:
            missing(
                label,
                f"{tree.root / label} has no image under {tree.root / tree.image_folder}. Fetch the"
                " image, or remove the label.",
            )
        elif label is None and job.labels:
            missing(
                image,
                f"{tree.root / image} has no label under {tree.root / tree.label_folder}. Fetch the"
                " label, or remove the image.",
            )
        elif image is not None:
            pairs.append(Pair(name, image, label))
    return pairs, problems


def _wanted(job: PrepareJob, names: dict[str, str]) -> tuple[dict[str, str], list[Problem]]:
    """The keys and names that the list names, and a problem for each line that names none."""
    if job.wanted is None:
        return names, []
    tree, keys = job.tree, list(names)
    paths = [tree.images.get(key) or tree.labels[key] for key in keys]
    finder = NameFinder(list(names.values()), paths, tree.root)
    selection = finder.select(job.wanted, job.origin)
    say_repeated(selection.repeated, job.origin)
    problems = [
        Problem(
            "missing",
            line,
            f"{job.origin} names {line}, which is not under {tree.root}; the nearest name there is"
            f" {finder.nearest(line)}. Complete the data set, or correct or remove the line.",
        )
        for line in sorted(set(selection.unknown))
        if job.in_shard(line)
    ]
    return {keys[index]: names[keys[index]] for index in sorted(selection.indices)}, problems
