"""Target images on which BatchNorm statistics are measured anew."""

from collections.abc import Iterable
from dataclasses import dataclass

from dataset.listing import ImageList, image_sizes
from dataset.loader import LoaderOptions, training_loader
from dataset.sampling import ShuffledIndex
from dataset.segmentation import Sample, SegmentationDataset
from dataset.transforms import RandomScaleCropFlip, WholeImage

FEW_IMAGES = 64
"""Fewer images give a poor variance: the attention's BatchNorm sees one value of each image."""


@dataclass(frozen=True)
class StatisticsOptions:
    """Which images are normalized together: at most ``batches`` of ``batch_size`` whole images, or
    random crops of ``crop_size`` (height, width), drawn by ``seed``.
    """

    batches: int
    batch_size: int
    crop_size: tuple[int, int] | None
    seed: int


def recalibration_images(listing: ImageList, options: StatisticsOptions) -> ImageList:
    """Draws the images to measure at random, in whole batches, without replacement.

    Raises ValueError for too few images, for images of different sizes, and for images smaller than
    the crop: padding would count as color of the target.
    """
    batches = min(options.batches, len(listing) // options.batch_size)
    if not batches:
        raise ValueError(
            f"Found {len(listing)} images, fewer than one batch of {options.batch_size}. Give more"
            f" images, {FEW_IMAGES} or more are of use."
        )
    order = ShuffledIndex(len(listing), options.seed, rng_stream=0)
    used = listing.subset([order(position) for position in range(batches * options.batch_size)])
    _require_sizes(used, options.crop_size)
    return used


def _require_sizes(listing: ImageList, crop_size: tuple[int, int] | None) -> None:
    sizes = image_sizes(listing)
    first, first_size = sizes[0]
    for path, size in sizes:
        if crop_size is None and size != first_size:
            raise ValueError(
                f"{first} is {first_size} and {path} is {size} (height, width): whole images of"
                " different sizes make no batch. Add --crop-size HEIGHT WIDTH, no larger than the"
                " smallest image."
            )
        if crop_size is not None and (size[0] < crop_size[0] or size[1] < crop_size[1]):
            raise ValueError(
                f"{path} is {size} (height, width), smaller than --crop-size {crop_size}. Choose a"
                " smaller crop."
            )


def recalibration_batches(
    used: ImageList, options: StatisticsOptions, loading: LoaderOptions
) -> Iterable[Sample]:
    """Batches of the images of ``recalibration_images``, in order."""
    crop_size = options.crop_size
    geometry = WholeImage() if crop_size is None else RandomScaleCropFlip((1.0,), crop_size)
    dataset = SegmentationDataset(used, geometry, seed=options.seed)
    batches = len(used) // options.batch_size
    return training_loader(dataset, options.batch_size, range(batches), loading)


def statistics_text(used: ImageList, split: str) -> str:
    """Describes the statistics of the images ``used``, of ``split``, with warnings if need be."""
    lines = [f"the BatchNorm statistics of {len(used)} images of {used.root}."]
    if len(used) < FEW_IMAGES:
        lines.append(
            f"WARNING: {len(used)} images are few for the statistics of the attention, which sees"
            f" one value of each. Give {FEW_IMAGES} or more."
        )
    if split == "val":
        lines.append(
            "WARNING: --split val takes the statistics of images of the evaluation (transductive)."
        )
    return "\n".join(lines)
