"""The files of each split of a folder, and the sizes of its images."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset.class_set import ClassSet
from dataset.data_files import find_data_files
from dataset.evenly import evenly
from dataset.find import say_joined_splits
from dataset.image_io import image_size
from dataset.label_io import label_size
from dataset.layout import data_images
from dataset.layout_file import Layout
from dataset.listing import DataFiles, ImageList
from dataset.prepared.journal import find_parts, is_prepared


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split.

    ``images``: all images. ``pairs``: those with a label, and these; None without labels.
    ``labels``: number of label files. ``alone``: images without label, and labels without image.
    ``fault``: why there is no image or no label. ``twins``: files that differ in their suffix only.
    """

    name: str
    images: ImageList | None = None
    pairs: ImageList | None = None
    labels: int = 0
    alone: tuple[list[str], list[str]] = ((), ())
    fault: str = ""
    twins: Sequence[tuple[str, str]] = ()


def split_files(
    layout: Layout, root: Path, split: str, class_set: ClassSet | None = None
) -> SplitFiles:
    """The files of one split of a raw or prepared root.

    Raises ValueError for files that cannot be paired, and for a prepared root of other classes.
    """
    if is_prepared(root):
        return _prepared_files(layout, Path(root), split, class_set)
    fault, twins = "", []
    try:
        tree = find_data_files(layout, root, split, bool(layout.splits[split].labels), twins)
    except FileNotFoundError as error:
        fault = str(error)
        try:
            twins.clear()
            tree = find_data_files(layout, root, split, False, twins)
        except FileNotFoundError as error:
            return SplitFiles(split, fault=str(error))
    say_joined_splits(tree.images, root)
    keys = [key for key in tree.images if key in tree.labels]
    alone = (
        [path for key, path in tree.images.items() if key not in tree.labels],
        [path for key, path in tree.labels.items() if key not in tree.images],
    )
    return SplitFiles(
        split,
        tree.listing(labels=False),
        _pairs(tree, keys) if keys else None,
        len(set(tree.labels.values())),
        alone if tree.labels else ((), ()),
        fault,
        twins,
    )


def _pairs(tree: DataFiles, keys: Sequence[str]) -> ImageList:
    return ImageList(
        tree.root,
        [tree.name(key) for key in keys],
        [tree.images[key] for key in keys],
        [tree.labels[key] for key in keys],
    )


def _prepared_files(
    layout: Layout, root: Path, split: str, class_set: ClassSet | None
) -> SplitFiles:
    data = layout.data_name(split)
    if not find_parts(root, data):
        return SplitFiles(split, fault=f"{root} holds no prepared {data}.")
    try:
        pairs = data_images(root, split, layout=layout, class_set=class_set)
    except FileNotFoundError as error:
        images = data_images(root, split, False, layout)
        return SplitFiles(split, images, fault=str(error))
    return SplitFiles(split, pairs, pairs, len(pairs))


@dataclass(frozen=True)
class Sizes:
    """(height, width) of ``count`` images, and the pairs whose label has another one."""

    count: int
    sizes: Counter[tuple[int, int]]
    unequal: list[str]
    faults: list[str]


def measure_sizes(listing: ImageList, most: int) -> Sizes:
    """The sizes of at most ``most`` images and their labels, by the headers of the files."""
    sizes: Counter[tuple[int, int]] = Counter()
    unequal, faults = [], []
    chosen = evenly(listing, most)
    for frame in chosen:
        try:
            size = image_size(frame.image)
            label = size if frame.label is None else label_size(frame.label)
        except (OSError, ValueError) as error:
            faults.append(str(error))
            continue
        sizes[size] += 1
        if label != size:
            unequal.append(f"{frame.image} {size} and {frame.label} {label}")
    return Sizes(len(chosen), sizes, unequal, faults)
