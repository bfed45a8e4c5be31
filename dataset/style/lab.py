"""Color transfer in LAB (Reinhard et al., 2001; the paper's Eq. 6).

The source image takes the color statistics of a target image. LAB is 8-bit as in OpenCV (L scaled
to 0-255, a and b shifted by 128), as in the published results. The map is pointwise: transforming a
crop with the statistics of the whole image equals cropping the transformed image.
"""

import functools
import multiprocessing
from typing import NamedTuple

import cv2
import numpy as np

from dataset.image_io import read_image
from dataset.labels import IGNORE_INDEX
from dataset.listing import ImageList
from dataset.transforms import CropOrigin

_MIN_CLASS_FRACTION = 5e-4
"""Class-balanced statistics leave out classes that cover a smaller fraction of the image."""
_MIN_LOOKUP_PIXELS = 1 << 17
"""Smaller images are converted directly, without the table of ``_rgba_of_lab``."""


class ChannelStatistics(NamedTuple):
    """Mean and population standard deviation of each channel over a whole image.

    (3,) float64 each, rounded to two decimals.
    """

    mean: np.ndarray
    std: np.ndarray


def channel_statistics(image: np.ndarray) -> ChannelStatistics:
    """The statistics of an (H, W, 3) uint8 image, in its own color space."""
    mean, std = cv2.meanStdDev(image)
    return ChannelStatistics(np.around(mean, 2).ravel(), np.around(std, 2).ravel())


def transfer_table(source: ChannelStatistics, target: ChannelStatistics) -> np.ndarray:
    """Eq. 6 for every value of every channel: (256, 3) uint8.

    A channel without variance (sigma_s = 0) becomes the target's mean.
    """
    values = np.arange(256, dtype=np.float64)[:, None]  # (256, 1)
    constant = source.std == 0
    divisor = np.where(constant, 1.0, source.std)
    mapped = ((values - source.mean) * target.std) / divisor + target.mean  # (256, 3)
    mapped = np.where(constant, target.mean, mapped)
    return np.round(np.clip(mapped, 0, 255)).astype(np.uint8)


def apply_table(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Maps each channel of an (H, W, 3) uint8 image by its column of a (256, 3) uint8 table."""
    # Three lookups in planes take less time than one in interleaved channels.
    columns = np.ascontiguousarray(table.T)  # (3, 256)
    planes = zip(cv2.split(image), columns, strict=True)
    return cv2.merge([cv2.LUT(plane, column) for plane, column in planes])


@functools.cache
def _rgba_of_lab() -> np.ndarray:
    """(2^24,) uint32: the bytes R, G, B, 255 of every LAB color, at index L + 256 a + 65536 b.

    It takes 64 MB in each process that needs it.
    """
    values = np.arange(256, dtype=np.uint8)
    table, lab = np.empty((256, 256, 256), "<u4"), np.empty((256, 256, 3), np.uint8)
    lab[..., 0], lab[..., 1] = values, values[:, None]
    for b in range(256):
        lab[..., 2] = b
        rgb = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
        table[b] = cv2.cvtColor(rgb, cv2.COLOR_RGB2RGBA).view("<u4")[..., 0]
    return table.ravel()


def lab_to_rgb(lab: np.ndarray) -> np.ndarray:
    """Converts (H, W, 3) uint8 LAB to RGB, bit for bit as OpenCV does.

    OpenCV's conversion takes most of the time of a transfer; a lookup takes a quarter of it.
    """
    if lab.shape[0] * lab.shape[1] < _MIN_LOOKUP_PIXELS:
        return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
    # The bytes L, a, b, 255 are a negative number, which counts from the end of the table.
    keys = cv2.cvtColor(lab, cv2.COLOR_RGB2RGBA).view("<i4")[..., 0]  # (H, W)
    rgba = _rgba_of_lab().take(keys).view(np.uint8).reshape(*keys.shape, 4)
    return cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB)


def lab_statistics(image: np.ndarray) -> ChannelStatistics:
    """The LAB statistics of a whole (H, W, 3) uint8 RGB image."""
    return channel_statistics(cv2.cvtColor(image, cv2.COLOR_RGB2LAB))


def class_balanced_lab_statistics(image: np.ndarray, train_ids: np.ndarray) -> ChannelStatistics:
    """LAB statistics of an (H, W, 3) uint8 RGB image in which all its classes weigh the same.

    ``train_ids``: (H, W) uint8. Unlabelled pixels, and classes that cover less than 0.05 % of the
    image, are left out. Without any class: ``lab_statistics``.
    """
    pixels = np.bincount(train_ids.ravel(), minlength=256)
    pixels[IGNORE_INDEX] = 0
    pixels[pixels < _MIN_CLASS_FRACTION * train_ids.size] = 0
    if not pixels.any():
        return lab_statistics(image)
    class_weight = 1 / np.count_nonzero(pixels)
    weight_of = np.divide(class_weight, pixels, out=np.zeros(256), where=pixels > 0)
    weight = weight_of[train_ids]  # (H, W), of sum 1
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    mean = np.tensordot(weight, lab, 2)
    std = np.sqrt(np.tensordot(weight, (lab - mean) ** 2, 2))
    return ChannelStatistics(np.around(mean, 2), np.around(std, 2))


def lab_transfer(
    image: np.ndarray, source_statistics: ChannelStatistics, target_statistics: ChannelStatistics
) -> np.ndarray:
    """Eq. 6: an (H, W, 3) uint8 RGB image, or a crop of it, in the colors of the target.

    ``source_statistics``: of the whole source image, never of the crop; perhaps class-balanced.
    Returns uint8 RGB of the same shape.
    """
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    return lab_to_rgb(apply_table(lab, transfer_table(source_statistics, target_statistics)))


def rgb_transfer(
    image: np.ndarray, source_statistics: ChannelStatistics, target_statistics: ChannelStatistics
) -> np.ndarray:
    """The same transfer in RGB, with ``channel_statistics`` of RGB images (the paper's Fig. 6)."""
    return apply_table(image, transfer_table(source_statistics, target_statistics))


class LabStatistics:
    """The LAB statistics of every image of a listing (48 bytes per image).

    A prepared root stores them. Those of a raw root are measured when first needed, by one worker
    for all. ``class_balanced``: see ``class_balanced_lab_statistics``; these are always measured.
    """

    def __init__(self, listing: ImageList, class_balanced: bool = False):
        self.listing, self.class_balanced = listing, class_balanced
        # Shared memory: workers see the measurements of the other workers.
        self._shared = multiprocessing.RawArray("d", 6 * len(listing))
        is_known = listing.statistics is not None and not class_balanced
        self._known[:] = listing.statistics.lab if is_known else np.nan

    @property
    def _known(self) -> np.ndarray:
        """(n, 2, 3) float64: mean and std of L, a and b; NaN where not measured yet."""
        return np.frombuffer(self._shared).reshape(-1, 2, 3)

    def __len__(self) -> int:
        return len(self.listing)

    def of(self, index: int, image: np.ndarray | None = None) -> ChannelStatistics:
        """The statistics of image ``index``; ``image``, the whole image, avoids reading it."""
        known = self._known[index]
        if np.isnan(known).any():  # also where another process is writing at this moment
            image = read_image(self.listing[index].image) if image is None else image
            if self.class_balanced:
                train_ids = self.listing.label_format.read_train_ids(self.listing[index].label)
                known[:] = class_balanced_lab_statistics(image, train_ids)
            else:
                known[:] = lab_statistics(image)
        return ChannelStatistics(*known.copy())


class LabTransfer:
    """Style transform: colors of a random target image (Eq. 6). It should be the first transform.

    ``class_balanced``: the classes of the source image weigh the same in its statistics. Otherwise
    an image of which a third is sky gives the sky the colors of the target's streets.
    """

    def __init__(self, source: ImageList, target: ImageList, class_balanced: bool = False):
        self.source, self.target = LabStatistics(source, class_balanced), LabStatistics(target)

    def __call__(
        self, crop: np.ndarray, origin: CropOrigin, rng: np.random.Generator
    ) -> np.ndarray:
        target = self.target.of(int(rng.integers(len(self.target))))
        source = self.source.of(origin.index, origin.full_image)
        return lab_transfer(crop, source, target)
