"""Source and target data of the training scripts: images, sampling, augmentation, batches."""

import functools
import hashlib
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import DataLoader

from dataset.class_set import ClassSet
from dataset.find import print_once
from dataset.layout import classes_of_labels, data_images
from dataset.layout_file import Layout
from dataset.listing import ImageList, image_sizes
from dataset.listing_check import NoLabelledPixelError, check_listing
from dataset.loader import LoaderOptions, evaluation_loader, training_loader
from dataset.pseudo_labels import label_record
from dataset.sampling import CyclicIndex, RareClassIndex, ShuffledIndex, class_pixels
from dataset.segmentation import Sample, SampleOptions, SegmentationDataset, common_size
from dataset.style.photometric import build_style_transforms
from dataset.target_flags import TargetFlags
from dataset.transforms import RandomScaleCropFlip, WholeImage

_class_pixels = functools.lru_cache(maxsize=1)(class_pixels)
SOURCE_STREAM, TARGET_STREAM = 0, 1
"""Random numbers of the two domains are independent, though a run has one seed."""


def label_hashes(images: ImageList) -> dict[str, str]:
    """{name: hash of the content of its label file}."""

    def hashed(index: int) -> str:
        return hashlib.sha256(images[index].label.read_bytes()).hexdigest()[:12]

    with ThreadPoolExecutor(8) as pool:
        return dict(zip(images.names, pool.map(hashed, range(len(images))), strict=True))


def label_provenance(label_root: Path, split: str, target: ImageList) -> dict[str, Any]:
    """What the record of pseudo-labels says of the network that made them; {} without a record.

    Without one, labels in the root of a data set are the true ones of the ``target`` images.
    """
    record = label_record(label_root, split)
    if record:
        return {"seen_images": [], **record.get("provenance", {})}
    is_data_set = (Path(label_root) / "leftImg8bit").is_dir()
    return {"labelled_images": target.identities} if is_data_set else {}


@dataclass(frozen=True)
class CropOptions:
    """Flags of add_augmentation_arguments (utils.options.groups): how crops are cut out."""

    crop_size: tuple[int, int]
    scales: tuple[float, ...]
    flip: float
    crop: str
    rare_class_sampling: bool
    cat_max_ratio: float
    seed: int

    def geometry(self) -> RandomScaleCropFlip:
        """The random scale, crop and mirror image of a sample."""
        return RandomScaleCropFlip(self.scales, self.crop_size, self.flip, self.crop)


@dataclass(frozen=True)
class StyleOptions:
    """Flags: probabilities of style augmentations of labelled images."""

    lab: float
    lab_class_balanced: bool
    fda: float
    jitter: float
    blur: float

    @property
    def needs_target(self) -> bool:
        """Whether colors of target images are taken over (--lab, --fda)."""
        return bool(self.lab or self.fda)


class BatchOptions(NamedTuple):
    """Size of a step's batch, how it is loaded, and the process's (rank, world size)."""

    batch_size: int
    loader: LoaderOptions
    shard: tuple[int, int]


class DomainBatches:
    """The batches of one domain, one a step; a function of the seed and the step.

    ``domain``: "source", "target" or "train". ``has_labels``: whether labels are ground truth to be
    shown beside predictions.
    """

    def __init__(
        self, domain: str, dataset: SegmentationDataset, options: BatchOptions, has_labels: bool
    ):
        self.domain, self.dataset, self.options = domain, dataset, options
        self.images = dataset.listing
        self.batch_size, self.has_labels = options.batch_size, has_labels

    def __len__(self) -> int:
        """Number of images."""
        return len(self.dataset)

    @property
    def class_set(self) -> ClassSet:
        return self.images.class_set

    def batches(self, steps: range) -> Iterable[Sample]:
        """One batch for each of the ``steps``, this process's part of it."""
        options = self.options
        return training_loader(
            self.dataset, options.batch_size, steps, options.loader, options.shard
        )

    def class_pixels(self) -> np.ndarray:
        """(C,) number of pixels of every class; the labels of a raw data set are all read once."""
        return _class_pixels(self.images).sum(0)

    def names(self, sample: Sample) -> list[str]:
        """The names of a batch's images."""
        return self.images.names_of(sample.index)


def labelled_data(
    images: ImageList,
    style_target: ImageList | None,
    crop: CropOptions,
    style: StyleOptions,
    padding: tuple[int, int, int],
) -> SegmentationDataset:
    """Augmented labelled images: the source of adaptation, or what is supervised.

    ``style_target``: images whose colors --lab and --fda take over, or None. ``padding``:
    RGB value around small images.
    """
    if crop.rare_class_sampling:
        order = RareClassIndex(_class_pixels(images), crop.seed, SOURCE_STREAM)
    else:
        order = ShuffledIndex(len(images), crop.seed, SOURCE_STREAM)
    transforms = build_style_transforms(
        images,
        style_target,
        style.lab,
        style.fda,
        style.jitter,
        style.blur,
        style.lab_class_balanced,
    )
    options = SampleOptions(padding, max_class_ratio=crop.cat_max_ratio)
    return SegmentationDataset(
        images, crop.geometry(), order, transforms, options, crop.seed, SOURCE_STREAM
    )


@dataclass(frozen=True)
class TargetOptions:
    """How target images are shown.

    ``target_view``: "crops", augmented like the source's, or "whole", not augmented and in order.
    ``target_scales``: scales of the crops, or None: those of the source. ``ignored_rows``: see
    SampleOptions. ``context_scale``: full images come beside the crops, with this scale squared
    times as many pixels as a crop; None: they do not. ``smallest_scale``: the smallest in which
    a network sees them.
    """

    target_view: str
    target_scales: tuple[float, ...] | None
    ignored_rows: tuple[float, float] | None
    context_scale: float | None
    smallest_scale: float = 1.0


def target_data(
    images: ImageList, crop: CropOptions, target: TargetOptions, padding: tuple[int, int, int]
) -> SegmentationDataset:
    """Target images, which have no labels unless pseudo-labels were given to them."""
    context_size = None
    if target.context_scale is not None:
        pixels = math.prod(crop.crop_size) * target.context_scale**2
        context_size = common_size(images, pixels)
        _require_context(context_size, target.smallest_scale / target.context_scale)
    if target.target_view == "crops":
        geometry = replace(crop.geometry(), scales=target.target_scales or crop.scales)
        order = ShuffledIndex(len(images), crop.seed, TARGET_STREAM)
    else:
        _require_one_size(images)
        geometry, order = WholeImage(), CyclicIndex(len(images))
    options = SampleOptions(padding, ignored_rows=target.ignored_rows, context_size=context_size)
    return SegmentationDataset(images, geometry, order, (), options, crop.seed, TARGET_STREAM)


def _require_context(size: tuple[int, int], smallest_scale: float) -> None:
    """Raises ValueError for full images whose smallest scale no network can take."""
    smallest = min(size) * smallest_scale
    if smallest < 32:
        raise ValueError(
            f"--teacher-context whole: whole images, with as many pixels as a crop, would be"
            f" {smallest:.0f} pixels high or wide; the network needs at least 32. Give a larger"
            " --crop-size or --teacher-scales, or --teacher-context crop"
        )


@dataclass(frozen=True, kw_only=True)
class ValidationOptions(TargetFlags):
    """Flags: which labelled images, of split val, are scored during a run; 0 steps: none."""

    val_list: Path | None
    leave_out: tuple[str, ...] | None
    validate_every: int


def validation_data(
    options: ValidationOptions,
    batches: BatchOptions,
    class_set: ClassSet,
    trained: Sequence[ImageList],
) -> DataLoader | None:
    """Batches of the scored images, checked like those that are trained on; None without any.

    Labels without any class end no training, which they do not change: they are warned of.
    ``trained``: the images of the run. Raises ValueError where a data set of one split has no other
    images to score, and what ``classes_of_labels``, ``data_images`` and ``check_listing`` raise.
    """
    if not options.validate_every:
        return None
    root, layout = options.scored_root, options.scored_layout
    classes = classes_of_labels(layout, root, class_set)
    images = data_images(root, "val", True, layout, classes, options.val_list)
    images = images.without(options.leave_out)
    if len(layout.splits) == 1:  # its only split is val, too
        for others in trained:
            _refuse_trained(images, others, layout)
    try:
        check_listing(images)
    except NoLabelledPixelError as error:
        print_once(f"WARNING: {error} The scores of --validate-every will be undefined (nan).")
    return evaluation_loader(images, batches.loader, batches.shard)


def _refuse_trained(images: ImageList, trained: ImageList, layout: Layout) -> None:
    """Raises ValueError for scored ``images`` that are also ``trained`` on."""
    names = set(trained.names)
    both = [name for name in images.names if name in names]
    if both and images.root.resolve() == trained.root.resolve():
        raise ValueError(
            f"--validate-every would score {len(both)} images that the run trains on, the first"
            f" {both[0]}: {layout.title} under {images.root} has the one split"
            f" {next(iter(layout.splits))}. Give --val-list and the list of the training images"
            " (--list, --target-list) different images, give a layout with a split val, or leave"
            " --validate-every out."
        )


def _require_one_size(images: ImageList) -> None:
    """Raises ValueError for images of different sizes, by their headers: they make no batch."""
    (first, size), *others = image_sizes(images)
    for path, other_size in others:
        if other_size != size:
            raise ValueError(
                f"--target-view whole needs images of one size: {first} is {size} and {path} is"
                f" {other_size} (height, width). Use --target-view crops, or a --target-list of"
                " images of one size."
            )
