"""Training and evaluation samples: images and labels that are cropped and augmented.

Sample number ``position`` is a function of (seed, position), whatever process makes it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from dataset.image_io import read_image
from dataset.labels import IGNORE_INDEX, TRAIN_ID_OF
from dataset.listing import Frame, ImageList
from dataset.transforms import CropOrigin, CropWindow, resize_area


class Geometry(Protocol):
    """Chooses the part of an image: RandomScaleCropFlip or WholeImage."""

    def choose_window(
        self, rng: np.random.Generator, image_size: tuple[int, int]
    ) -> CropWindow: ...


StyleTransform = Callable[[np.ndarray, CropOrigin, np.random.Generator], np.ndarray]
"""(crop, its origin, rng) -> crop, (h, w, 3) uint8 RGB: style augmentation before any resize."""

_MAX_CROP_ATTEMPTS = 10
"""Random crops that are tried until no class exceeds ``max_class_ratio``."""
_RATIO_STRIDE = 4
"""The class ratio of a crop is measured on every fourth pixel of each axis."""


class Sample(NamedTuple):
    """One sample, or a batch of N with a first axis N in each field: (N, H, W, 3), (N, H, W), (N,).

    ``image``: (H, W, 3) uint8 RGB. ``label``: (H, W) uint8 trainIds, or None. ``index``: int64,
    position of the image in its ImageList. ``sample_seed``: int64, a seed for later random choices.
    ``full_image``: (h, w, 3) uint8 RGB, the whole image resized to ``context_size``, or None.
    ``affine_theta``: (2, 3) float32, position of the crop in it (CropWindow.affine_theta), or None.
    """

    image: Tensor
    label: Tensor | None
    index: Tensor
    sample_seed: Tensor
    full_image: Tensor | None = None
    affine_theta: Tensor | None = None

    def count_valid_pixels(self) -> int:
        """Number of labelled pixels."""
        return int((self.label != IGNORE_INDEX).sum())

    def split(self, count: int) -> Iterator["Sample"]:
        """Splits a batch into ``count`` micro-batches of equal size, as views.

        Raises ValueError when the batch size is not a multiple of ``count``.
        """
        if len(self.image) % count:
            raise ValueError(
                f"A batch of {len(self.image)} images cannot be split into {count} equal"
                " micro-batches. Choose a multiple as --batch-size."
            )
        fields = ([None] * count if field is None else field.chunk(count) for field in self)
        return map(Sample._make, zip(*fields, strict=True))


@dataclass(frozen=True)
class SampleOptions:
    """Options of SegmentationDataset that few data sets need.

    ``padding``: RGB value around images that are smaller than the crop. ``max_class_ratio``: a
    labelled crop in which one class covers this fraction of the labelled pixels or more is drawn
    again, up to ten times (cat_max_ratio of mmsegmentation); 1: never. ``ignored_rows``: for images
    without labels, (top, bottom) fractions of the height to ignore, such as sky and ego vehicle.
    ``label`` is then 255 in these rows and in the padding, and 0 elsewhere. None: samples without
    labels. ``context_size``: (height, width) to which the whole image is resized as ``full_image``,
    before style augmentation. None: no ``full_image``.
    """

    padding: tuple[int, int, int] = (0, 0, 0)
    max_class_ratio: float = 1.0
    ignored_rows: tuple[float, float] | None = None
    context_size: tuple[int, int] | None = None


class SegmentationDataset(Dataset):
    """Augmented samples of the images in ``listing``.

    ``order(position)`` gives the index of the image and ``geometry`` the crop; ``styles`` are
    applied in turn. ``rng_stream`` gives data sets of one ``seed`` (source and target) different
    random numbers. Indexing raises what dataset.image_io and dataset.label_io raise, and ValueError
    when an image and its label differ in size.
    """

    def __init__(
        self,
        listing: ImageList,
        geometry: Geometry,
        order: Callable[[int], int] = int,
        styles: Sequence[StyleTransform] = (),
        options: SampleOptions = SampleOptions(),
        seed: int = 0,
        rng_stream: int = 0,
    ):
        self.listing, self.geometry, self.order = listing, geometry, order
        self.styles, self.options = tuple(styles), options
        self.seed, self.rng_stream = seed, rng_stream

    def __len__(self) -> int:
        return len(self.listing)

    def __getitem__(self, position: int) -> Sample:
        rng = np.random.default_rng((self.seed, self.rng_stream, position))
        index = self.order(position)
        frame = self.listing[index]
        full_image = read_image(frame.image)  # (H, W, 3)
        image_size = full_image.shape[:2]
        label_ids = None if frame.label is None else self._read_label(frame, image_size)  # (H, W)

        window = self._choose_window(rng, image_size, label_ids)
        origin = CropOrigin(index, full_image, window.input_slices())
        crop = full_image[origin.slices]
        for style in self.styles:
            crop = style(crop, origin, rng)

        sample = Sample(
            torch.from_numpy(window.apply_to_image(crop, self.options.padding)),
            self._label(label_ids, image_size, window),
            torch.tensor(index),
            torch.tensor(rng.integers(1 << 62)),
        )
        if self.options.context_size is None:
            return sample
        return sample._replace(
            full_image=torch.from_numpy(resize_area(full_image, self.options.context_size)),
            affine_theta=torch.from_numpy(window.affine_theta()),
        )

    def _choose_window(
        self, rng: np.random.Generator, image_size: tuple[int, int], label_ids: np.ndarray | None
    ) -> CropWindow:
        """Chooses a crop window, again while one class exceeds ``max_class_ratio``."""
        limit = self.options.max_class_ratio
        window = self.geometry.choose_window(rng, image_size)
        if label_ids is None or limit == 1:
            return window
        for _ in range(_MAX_CROP_ATTEMPTS - 1):
            label = label_ids[window.input_slices()]
            if largest_class_ratio(label, self.listing.label_format.train_id_of) < limit:
                break
            window = self.geometry.choose_window(rng, image_size)
        return window

    def _label(
        self, label_ids: np.ndarray | None, image_size: tuple[int, int], window: CropWindow
    ) -> Tensor | None:
        """(H, W) uint8: trainIds of a labelled image, or the mask of ``ignored_rows``; or None."""
        if label_ids is not None:
            table = self.listing.label_format.train_id_of
            return torch.from_numpy(window.apply_to_label(label_ids[window.input_slices()], table))
        if self.options.ignored_rows is None:
            return None
        mask = _ignored_rows_mask(image_size, self.options.ignored_rows)
        return torch.from_numpy(window.apply_to_label(mask[window.input_slices()]))

    def _read_label(self, frame: Frame, image_size: tuple[int, int]) -> np.ndarray:
        """(H, W) uint8: see LabelFormat.read. Raises ValueError for another size than the image."""
        label = self.listing.label_format.read(frame.label)
        if label.shape != image_size:
            raise ValueError(
                f"{frame.image} is {image_size} and {frame.label} is {label.shape} (height, width);"
                " expected equal sizes. Remove the pair, or leave it out with a list."
            )
        return label


def _ignored_rows_mask(
    image_size: tuple[int, int], ignored_rows: tuple[float, float]
) -> np.ndarray:
    """(H, W) uint8: 255 in the top and bottom fractions ``ignored_rows`` of the rows, else 0."""
    mask = np.zeros(image_size, np.uint8)
    top, bottom = (round(fraction * image_size[0]) for fraction in ignored_rows)
    mask[:top] = mask[image_size[0] - bottom :] = IGNORE_INDEX
    return mask


def common_size(listing: ImageList, pixels: float) -> tuple[int, int]:
    """(height, width) with about ``pixels`` pixels and the aspect ratio of the first image.

    Raises what dataset.image_io raises.
    """
    height, width = read_image(listing[0].image).shape[:2]
    factor = math.sqrt(pixels / (height * width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def largest_class_ratio(label: np.ndarray, train_id_of: np.ndarray = TRAIN_ID_OF) -> float:
    """Fraction of the labelled pixels that the largest class covers; 1 without labelled pixels.

    ``label``: (h, w) uint8, of which ``train_id_of`` makes trainIds. Every fourth pixel of each
    axis is counted.
    """
    train_ids = train_id_of[label[::_RATIO_STRIDE, ::_RATIO_STRIDE]]
    counts = np.bincount(train_ids[train_ids != IGNORE_INDEX])
    return counts.max() / counts.sum() if len(counts) else 1.0


def collate(samples: list[Sample]) -> Sample:
    """Stacks samples to a batch; in a worker directly in shared memory. Absent fields stay None."""
    fields = zip(*samples, strict=True)
    return Sample(*(None if field[0] is None else default_collate(field) for field in fields))
