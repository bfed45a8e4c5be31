"""Color transfer in LAB (Reinhard et al., 2001; the paper's Eq. 6): the source image takes the
target image's color statistics.

8-bit LAB as OpenCV makes it (L scaled to 0-255, a and b shifted by 128), as the published numbers
were made. The map is pointwise: transforming a crop with the statistics of the whole image equals
cropping the transformed image.
"""

import multiprocessing
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from dataset.image_io import map_array, read_image, read_label
from dataset.labels import IGNORE_INDEX, TRAIN_ID_OF
from dataset.listing import ImageList
from dataset.transforms import SourceRegion

_SMALLEST_CLASS = 5e-4
"""Of an image's pixels: a class with fewer does not count among those of equal areas."""


class ChannelStatistics(NamedTuple):
    """Mean and population standard deviation of each channel over a whole image, (3,) float64 each,
    rounded to two decimals.
    """

    mean: np.ndarray
    std: np.ndarray


def channel_statistics(image: np.ndarray) -> ChannelStatistics:
    """The statistics of an (H, W, 3) uint8 image in the color space that it is in."""
    mean, std = cv2.meanStdDev(image)
    return ChannelStatistics(np.around(mean, 2).ravel(), np.around(std, 2).ravel())


def transfer_table(source: ChannelStatistics, target: ChannelStatistics) -> np.ndarray:
    """Eq. 6 for every possible value: (256, 3) uint8. A channel without spread (sigma_s = 0)
    becomes the target's mean.
    """
    values = np.arange(256, dtype=np.float64)[:, None]  # (256, 1)
    flat = source.std == 0
    mapped = ((values - source.mean) * target.std) / np.where(
        flat, 1.0, source.std
    ) + target.mean  # (256, 3)
    mapped = np.where(flat, target.mean, mapped)
    return np.round(np.clip(mapped, 0, 255)).astype(np.uint8)


def apply_table(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Each channel of an (H, W, 3) uint8 image through its column of a (256, 3) uint8 table."""
    return cv2.LUT(image, table[None])


def lab_statistics(image: np.ndarray) -> ChannelStatistics:
    """The LAB statistics of a whole (H, W, 3) uint8 RGB image."""
    return channel_statistics(cv2.cvtColor(image, cv2.COLOR_RGB2LAB))


def class_balanced_lab_statistics(image: np.ndarray, train_ids: np.ndarray) -> ChannelStatistics:
    """The LAB statistics that an (H, W, 3) uint8 RGB image would have if all of its classes covered
    equal areas.

    ``train_ids``: (H, W) uint8; void and classes of less than 0.05 % of the pixels are left out.
    Without any class: ``lab_statistics``.
    """
    pixels = np.bincount(train_ids.ravel(), minlength=256)
    pixels[IGNORE_INDEX] = 0
    pixels[pixels < _SMALLEST_CLASS * train_ids.size] = 0
    if not pixels.any():
        return lab_statistics(image)
    weight = np.divide(1 / np.count_nonzero(pixels), pixels, out=np.zeros(256), where=pixels > 0)[
        train_ids
    ]  # (H, W), of sum 1
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    mean = np.tensordot(weight, lab, 2)
    std = np.sqrt(np.tensordot(weight, (lab - mean) ** 2, 2))
    return ChannelStatistics(np.around(mean, 2), np.around(std, 2))


def lab_transfer(
    image: np.ndarray, source_statistics: ChannelStatistics, target_statistics: ChannelStatistics
) -> np.ndarray:
    """Eq. 6: an (H, W, 3) uint8 RGB image, or a crop of it, in the colors of the target. Returns
    uint8 RGB of the same shape.

    ``source_statistics`` are those of the whole image that ``image`` comes from, never of the crop;
    perhaps by class.
    """
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    return cv2.cvtColor(
        apply_table(lab, transfer_table(source_statistics, target_statistics)), cv2.COLOR_LAB2RGB
    )


def rgb_transfer(
    image: np.ndarray, source_statistics: ChannelStatistics, target_statistics: ChannelStatistics
) -> np.ndarray:
    """The same transfer done in RGB, with ``channel_statistics`` of the RGB images: what the
    paper's Fig. 6 compares LAB with.
    """
    return apply_table(image, transfer_table(source_statistics, target_statistics))


class LabCopy(NamedTuple):
    """An image in LAB, as (H, W) numbers of colors and the (K, 3) uint8 colors.

    A picture of two million pixels has 20,000 to 100,000 LAB colors. Eq. 6 maps these, and the
    pixels are looked up: the same result as transforming every pixel, bit for bit, in a quarter of
    the time.
    """

    index: np.ndarray
    """uint16 where that is enough, else uint32."""
    colors: np.ndarray

    @classmethod
    def of(cls, lab: np.ndarray) -> "LabCopy":
        """The copy of an (H, W, 3) uint8 LAB image."""
        keys = (
            lab[..., 0].astype(np.uint32) << 16 | lab[..., 1].astype(np.uint32) << 8 | lab[..., 2]
        )
        present = np.zeros(
            1 << 24, bool
        )  # one entry for each possible color: much faster than sorting the pixels
        present[keys] = True
        found = np.flatnonzero(present).astype(np.uint32)
        number = np.empty(1 << 24, np.uint32)
        number[found] = np.arange(len(found), dtype=np.uint32)
        colors = np.stack([found >> 16, found >> 8 & 255, found & 255], -1).astype(np.uint8)
        return cls(number[keys].astype(cls.index_type(len(found))), colors)

    @classmethod
    def read(cls, path: Path) -> "LabCopy":
        """Maps ``path`` and the colors beside it. Raises FileNotFoundError or ValueError."""
        return cls(map_array(path, 2, (np.uint16, np.uint32)), map_array(cls.colors_path(path), 2))

    @staticmethod
    def colors_path(path: Path) -> Path:
        return path.with_name(f"{path.stem}_colors.npy")

    @staticmethod
    def index_type(colors: int) -> type:
        return np.uint16 if colors <= 1 << 16 else np.uint32

    def transfer(
        self,
        where: tuple[slice, slice],
        source_statistics: ChannelStatistics,
        target_statistics: ChannelStatistics,
    ) -> np.ndarray:
        """``lab_transfer`` of the region ``where`` of the image: (h, w, 3) uint8 RGB."""
        mapped = apply_table(
            self.colors[None], transfer_table(source_statistics, target_statistics)
        )  # (1, K, 3)
        packed = (
            cv2.cvtColor(cv2.cvtColor(mapped, cv2.COLOR_LAB2RGB), cv2.COLOR_RGB2RGBA)
            .view(np.uint32)
            .ravel()
        )  # (K,), one word a color
        pixels = packed.take(self.index[where])  # (h, w)
        return cv2.cvtColor(pixels.view(np.uint8).reshape(*pixels.shape, 4), cv2.COLOR_RGBA2RGB)


class LabStatistics:
    """The LAB statistics of every image of a listing (48 bytes an image).

    Those of a prepared root are known; of a raw one each is measured when first asked for, by one
    process for all of them. ``by_class``: with all classes of an image weighing the same, which its
    label tells; these are always measured.
    """

    def __init__(self, listing: ImageList, by_class: bool = False):
        self.listing, self.by_class = listing, by_class
        self._shared = multiprocessing.RawArray(
            "d", 6 * len(listing)
        )  # workers see what the others have measured
        self._known[:] = (
            np.nan if listing.statistics is None or by_class else listing.statistics.lab
        )

    @property
    def _known(self) -> np.ndarray:
        return np.frombuffer(self._shared).reshape(-1, 2, 3)

    def __len__(self) -> int:
        return len(self.listing)

    def of(self, index: int, image: np.ndarray | None = None) -> ChannelStatistics:
        """The statistics of image ``index``; ``image`` spares reading it where the caller already
        has it, whole.
        """
        known = self._known[index]
        if np.isnan(known).any():  # also where another process is writing at this moment
            image = read_image(self.listing[index].image) if image is None else image
            label = TRAIN_ID_OF[read_label(self.listing[index].label)] if self.by_class else None
            known[:] = (
                lab_statistics(image)
                if label is None
                else class_balanced_lab_statistics(image, label)
            )
        return ChannelStatistics(*known.copy())


class LabTransfer:
    """A style step: gives a source image the colors of a target image drawn at random. Wants to be
    the first of the steps.

    ``by_class``: what takes the target's mean and spread is not the source image as it is, but as
    if its classes covered equal areas. Else an image that is a third sky gives the sky the colors
    of the target's streets.
    """

    def __init__(self, source: ImageList, target: ImageList, by_class: bool = False):
        self.source, self.target = LabStatistics(source, by_class), LabStatistics(target)

    def __call__(
        self, crop: np.ndarray, origin: SourceRegion, rng: np.random.Generator
    ) -> np.ndarray:
        target = self.target.of(int(rng.integers(len(self.target))))
        source = self.source.of(origin.index, origin.full_image)
        copy = self.source.listing.lab_copy(origin.index)
        if copy is not None and np.may_share_memory(
            crop, origin.full_image
        ):  # no other step has changed the crop
            return LabCopy.read(copy).transfer(origin.slices, source, target)
        return lab_transfer(crop, source, target)
