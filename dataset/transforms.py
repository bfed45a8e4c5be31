"""Paired augmentation: scale, crop and flip, drawn first and then applied to the region they need
and nothing else.

A scale s maps output coordinate i to source coordinate (i + 0.5) / s - 0.5 in both axes, never
through a rounded size. Images are interpolated bilinearly, labels take the nearest pixel. Sizes are
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
    """One axis of a window: ``length`` output pixels from ``start`` of an axis that was scaled by
    ``scale`` from ``full`` pixels.
    """

    start: int
    length: int
    scale: Fraction
    full: int

    def source(self) -> tuple[slice, int]:
        """The source pixels needed, and how many output pixels their resize yields before
        ``start``.

        The slice begins where output and source grids coincide, so that resizing it alone samples
        exactly the points that resizing the whole axis would. Enlarging looks one pixel back, hence
        one period more.
        """
        p, q = self.scale.numerator, self.scale.denominator
        first = max(0, self.start - self.start % p - (p if p > q else 0))
        last_tap = ((2 * (self.start + self.length) - 1) * q - p) // (2 * p) + 1
        return slice(first * q // p, min(self.full, last_tap + 1)), self.start - first

    def nearest(self) -> np.ndarray:
        """(length,) int64: the source pixel under the centre of each output pixel; all lie within
        ``source``.
        """
        p, q = self.scale.numerator, self.scale.denominator
        centres = 2 * np.arange(self.start, self.start + self.length, dtype=np.int64) + 1
        return np.minimum(centres * q // (2 * p), self.full - 1)


@dataclass(frozen=True)
class CropWindow:
    """What augmentation takes from one image: rows and columns of the scaled image, perhaps
    mirrored, padded to ``size``.
    """

    rows: AxisCrop
    columns: AxisCrop
    top: int
    left: int
    size: tuple[int, int]
    flip: bool

    def source(self) -> tuple[slice, slice]:
        """The region of the source that the image and the label of the window are made from."""
        return self.rows.source()[0], self.columns.source()[0]

    def apply_to_image(self, region: np.ndarray, padding: tuple[int, int, int]) -> np.ndarray:
        """``region`` = image[window.source()], (h, w, 3) uint8 -> (*size, 3) uint8."""
        scale = float(self.rows.scale)
        if scale != 1:
            region = cv2.resize(region, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        y, x = self.rows.source()[1], self.columns.source()[1]
        return self._put(region[y : y + self.rows.length, x : x + self.columns.length], padding)

    def apply_to_label(
        self, region: np.ndarray, train_id_of: np.ndarray | None = None
    ) -> np.ndarray:
        """``region`` = label[window.source()], (h, w) uint8 -> (*size,) uint8, padded with 255.

        ``train_id_of``: a (256,) uint8 table that every pixel taken goes through; None leaves them
        as they are.
        """
        if self.rows.scale == 1:
            region = region[: self.rows.length, : self.columns.length]
        else:
            rows, columns = (
                span.nearest() - span.source()[0].start for span in (self.rows, self.columns)
            )
            # The axis first that leaves less for the other. (region[rows][:, columns] would leave
            # the columns together, not the rows.)
            for axis in (0, 1) if self.rows.scale < 1 else (1, 0):
                region = region.take((rows, columns)[axis], axis=axis)
        return self._put(
            region if train_id_of is None else cv2.LUT(region, train_id_of), IGNORE_INDEX
        )

    def affine_theta(self) -> np.ndarray:
        """(2, 3) float32: where the window lies in its image, as torch's ``affine_grid`` takes it.
        Both run from -1 to 1 in x and in y.
        """
        (y_factor, y_shift), (x_factor, x_shift) = (
            (
                size / (span.scale * span.full),
                (size + 2 * (span.start - offset)) / (span.scale * span.full) - 1,
            )
            for span, size, offset in zip(
                (self.rows, self.columns), self.size, (self.top, self.left), strict=True
            )
        )
        return np.array(
            [[-x_factor if self.flip else x_factor, 0, x_shift], [0, y_factor, y_shift]], np.float32
        )

    def _put(self, content: np.ndarray, padding: int | tuple[int, int, int]) -> np.ndarray:
        if self.flip:
            content = cv2.flip(content, 1)
        if content.shape[:2] == self.size:
            return writable_copy(content)
        height, width = content.shape[:2]
        left = self.size[1] - self.left - width if self.flip else self.left
        bottom, right = self.size[0] - self.top - height, self.size[1] - left - width
        return cv2.copyMakeBorder(
            content, self.top, bottom, left, right, cv2.BORDER_CONSTANT, value=padding
        )


class SourceRegion(NamedTuple):
    """Where a region comes from: image number ``index`` of the listing, ``whole`` (H, W, 3) uint8
    RGB, and ``where`` in it.
    """

    index: int
    whole: np.ndarray
    where: tuple[slice, slice]


@dataclass(frozen=True)
class RandomScaleCropFlip:
    """Draws a CropWindow: a scale out of ``scales``, a crop of ``size``, a mirror image with
    probability ``flip``.

    ``crop``: "random" (anywhere; a scaled image smaller than the crop lies at the top left) or
    "centre" (the middle of both, the manner of the authors' code).
    """

    scales: tuple[float, ...]
    size: tuple[int, int]
    flip: float = 0.5
    crop: str = "random"

    def draw(self, rng: np.random.Generator, image_size: tuple[int, int]) -> CropWindow:
        # A short fraction keeps the output grid periodic in the source grid, which is what makes
        # reading a region exact.
        scale = Fraction(self.scales[rng.integers(len(self.scales))]).limit_denominator(64)
        spans, offsets = [], []
        for full, wanted in zip(image_size, self.size, strict=True):
            scaled = max(1, int(full * scale))
            room, length = scaled - wanted, min(scaled, wanted)
            if self.crop == "centre":
                start, offset = max(0, room // 2), max(0, -room // 2)
            else:
                start, offset = int(rng.integers(max(0, room) + 1)), 0
            spans.append(AxisCrop(start, length, scale, full))
            offsets.append(offset)
        return CropWindow(*spans, *offsets, self.size, bool(rng.random() < self.flip))


@dataclass(frozen=True)
class WholeImage:
    """Draws the CropWindow that is the whole image, unchanged: validation, and the target images of the
    recipe "authors".
    """

    def draw(self, rng: np.random.Generator, image_size: tuple[int, int]) -> CropWindow:
        rows, columns = (AxisCrop(0, full, Fraction(1), full) for full in image_size)
        return CropWindow(rows, columns, 0, 0, tuple(image_size), False)


def resize_area(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w, 3) uint8 -> (*size, 3) uint8, each pixel the mean of those it covers where the image
    shrinks.
    """
    if image.shape[:2] == size:
        return writable_copy(image)
    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    return cv2.resize(
        image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )


def writable_copy(image: np.ndarray) -> np.ndarray:
    """An array whose memory a tensor may share: a mapped file, which is read-only, is copied."""
    return np.require(image, requirements=["C", "W"])
