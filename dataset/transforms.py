"""Paired augmentation of image and label: random scale, crop and flip.

A window is chosen first; then only the pixels of the image that it needs are read and resized. A
scale s maps output coordinate i to input coordinate (i + 0.5) / s - 0.5 in both axes, never through
a rounded size. Images are interpolated bilinearly, labels take the nearest pixel. Sizes are
(height, width).
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import cv2
import numpy as np

from dataset.labels import IGNORE_INDEX


@dataclass(frozen=True)
class AxisCrop:
    """A crop along one axis: ``length`` pixels from ``start`` of the scaled axis.

    ``full`` is the number of input pixels along the axis, before scaling by ``scale``.
    """

    start: int
    length: int
    scale: Fraction
    full: int

    def input_slice(self) -> tuple[slice, int]:
        """Input pixels needed, and the number of output pixels that resizing them adds in front.

        The slice begins where output and input grids coincide, so that resizing it alone samples
        exactly the points that resizing the whole axis would. Enlarging reads one pixel further
        back, hence one period more.
        """
        p, q = self.scale.numerator, self.scale.denominator
        first = max(0, self.start - self.start % p - (p if p > q else 0))
        last_tap = ((2 * (self.start + self.length) - 1) * q - p) // (2 * p) + 1
        return slice(first * q // p, min(self.full, last_tap + 1)), self.start - first

    def nearest(self) -> np.ndarray:
        """(length,) int64: the input pixel under the center of each output pixel.

        All of them lie within ``input_slice``.
        """
        p, q = self.scale.numerator, self.scale.denominator
        centers = 2 * np.arange(self.start, self.start + self.length, dtype=np.int64) + 1
        return np.minimum(centers * q // (2 * p), self.full - 1)


@dataclass(frozen=True)
class CropWindow:
    """A crop of the scaled image, flipped if ``flip``, and padded to ``size``.

    ``top`` and ``left``: rows and columns of padding before the crop (before flipping).
    """

    rows: AxisCrop
    columns: AxisCrop
    top: int
    left: int
    size: tuple[int, int]
    flip: bool

    def input_slices(self) -> tuple[slice, slice]:
        """Rows and columns of the image and its label from which the window is made."""
        return self.rows.input_slice()[0], self.columns.input_slice()[0]

    def apply_to_image(self, crop: np.ndarray, padding: tuple[int, int, int]) -> np.ndarray:
        """``crop`` = image[window.input_slices()], (h, w, 3) uint8 -> (*size, 3) uint8."""
        scale = float(self.rows.scale)
        if scale != 1:
            crop = cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        y, x = self.rows.input_slice()[1], self.columns.input_slice()[1]
        return self._pad(crop[y : y + self.rows.length, x : x + self.columns.length], padding)

    def apply_to_label(self, crop: np.ndarray, train_id_of: np.ndarray | None = None) -> np.ndarray:
        """``crop`` = label[window.input_slices()], (h, w) uint8 -> (*size,) uint8, padded with 255.

        ``train_id_of``: (256,) uint8 lookup table for every pixel; None: pixels are unchanged.
        """
        if self.rows.scale == 1:
            crop = crop[: self.rows.length, : self.columns.length]
        else:
            rows, columns = (
                axis.nearest() - axis.input_slice()[0].start for axis in (self.rows, self.columns)
            )
            # First the axis that leaves fewer pixels for the second. (crop[rows][:, columns] would
            # leave the columns contiguous, not the rows.)
            for axis in (0, 1) if self.rows.scale < 1 else (1, 0):
                crop = crop.take((rows, columns)[axis], axis=axis)
        return self._pad(crop if train_id_of is None else cv2.LUT(crop, train_id_of), IGNORE_INDEX)

    def affine_theta(self) -> np.ndarray:
        """(2, 3) float32: position of the window in the whole image, for torch's ``affine_grid``.

        Coordinates of both run from -1 to 1 in x and in y.
        """
        y_factor, y_shift = _affine_axis(self.rows, self.size[0], self.top)
        x_factor, x_shift = _affine_axis(self.columns, self.size[1], self.left)
        return np.array(
            [[-x_factor if self.flip else x_factor, 0, x_shift], [0, y_factor, y_shift]], np.float32
        )

    def _pad(self, content: np.ndarray, padding: int | tuple[int, int, int]) -> np.ndarray:
        """Flips ``content`` and pads it to ``size``."""
        if self.flip:
            content = cv2.flip(content, 1)
        if content.shape[:2] == self.size:
            return as_writable(content)
        height, width = content.shape[:2]
        left = self.size[1] - self.left - width if self.flip else self.left
        bottom, right = self.size[0] - self.top - height, self.size[1] - left - width
        return cv2.copyMakeBorder(
            content, self.top, bottom, left, right, cv2.BORDER_CONSTANT, value=padding
        )


def _affine_axis(axis: AxisCrop, size: int, offset: int) -> tuple[float, float]:
    """Scale and shift from window to image coordinates along one axis, both from -1 to 1."""
    scaled_length = axis.scale * axis.full
    return size / scaled_length, (size + 2 * (axis.start - offset)) / scaled_length - 1


class CropOrigin(NamedTuple):
    """Origin of a crop: the image at ``index`` of the listing, and the ``slices`` cut from it.

    ``full_image``: (H, W, 3) uint8 RGB, the whole image.
    """

    index: int
    full_image: np.ndarray
    slices: tuple[slice, slice]


@dataclass(frozen=True)
class RandomScaleCropFlip:
    """Chooses a crop of ``size`` at one of ``scales``, flipped with probability ``flip``.

    ``crop``: "random" (anywhere; a scaled image smaller than the crop lies at the top left), or
    "centre" (the middle of both, as in the authors' code).
    """

    scales: tuple[float, ...]
    size: tuple[int, int]
    flip: float = 0.5
    crop: str = "random"

    def choose_window(self, rng: np.random.Generator, image_size: tuple[int, int]) -> CropWindow:
        # A short fraction makes the output grid periodic in the input grid, so that a part of the
        # image can be resized exactly as within the whole.
        scale = Fraction(self.scales[rng.integers(len(self.scales))]).limit_denominator(64)
        crops, offsets = [], []
        for full, wanted in zip(image_size, self.size, strict=True):
            scaled = max(1, int(full * scale))
            excess, length = scaled - wanted, min(scaled, wanted)
            if self.crop == "centre":
                start, offset = max(0, excess // 2), max(0, -excess // 2)
            else:
                start, offset = int(rng.integers(max(0, excess) + 1)), 0
            crops.append(AxisCrop(start, length, scale, full))
            offsets.append(offset)
        return CropWindow(*crops, *offsets, self.size, bool(rng.random() < self.flip))


@dataclass(frozen=True)
class WholeImage:
    """Chooses the CropWindow of the whole, unchanged image (validation; recipe "authors")."""

    def choose_window(self, rng: np.random.Generator, image_size: tuple[int, int]) -> CropWindow:
        rows, columns = (AxisCrop(0, full, Fraction(1), full) for full in image_size)
        return CropWindow(rows, columns, 0, 0, tuple(image_size), False)


def resize_area(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w, 3) uint8 -> (*size, 3) uint8, by area averaging where the image shrinks."""
    if image.shape[:2] == size:
        return as_writable(image)
    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    return cv2.resize(
        image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )


def as_writable(image: np.ndarray) -> np.ndarray:
    """A contiguous, writable array, as a tensor needs it; a mapped, read-only file is copied."""
    return np.require(image, requirements=["C", "W"])
