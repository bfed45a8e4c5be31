"""Tools that draw generated streets: colors, noise, and a canvas with labels.

Colors are RGB triples, 0-255. Label arguments are labelIds. The same calls draw picture and labels,
so they agree by construction.
"""

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import cache

import cv2
import numpy as np

from dataset.labels import CLASS_NAMES, LABEL_IDS

LABEL = {
    **dict(zip(CLASS_NAMES, LABEL_IDS, strict=True)),
    "ego vehicle": 1,
    "static": 4,
    "rail track": 10,
    "license plate": 34,
}
"""labelId by name: the 19 classes and the ignored labels that the streets use."""

_CORNERS = np.array([(-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0)])
_SUBPIXEL_BITS = 4
_FURTHEST_PX = 2e4
"""Coordinates are clipped to this magnitude, since OpenCV computes in 32-bit integers."""


def hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """(3,) float RGB, 0-255, of a hue in turns, a saturation and a value.

    The hue wraps around; saturation and value are clipped to 0-1.
    """
    saturation, value = min(max(saturation, 0), 1), min(max(value, 0), 1)
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value)) * 255


def to_uint8(picture: np.ndarray) -> np.ndarray:
    """Clips float colors of any shape to 0-255 and rounds them down."""
    return picture.clip(0, 255, out=np.empty(picture.shape, np.uint8), casting="unsafe")


def as_planes(color: np.ndarray) -> np.ndarray:
    """Color (3,) -> (3, 1, 1), for arithmetic on planes.

    Arithmetic on planes (3, H, W) is several times faster than on pixels (H, W, 3).
    """
    return color[:, None, None]


def to_picture(planes: np.ndarray) -> np.ndarray:
    """Float planes (3, H, W) -> picture (H, W, 3) uint8, clipped to 0-255 and rounded down."""
    return cv2.merge(tuple(to_uint8(planes)))


def lit(picture: np.ndarray, light: float) -> np.ndarray:
    """Multiplies a picture (H, W, 3) uint8 by ``light``; clipped to 0-255 and rounded down."""
    return cv2.LUT(picture, to_uint8(np.arange(256) * light))


def fractal_noise(
    rng: np.random.Generator, size: tuple[int, int], wavelengths: tuple[float, ...]
) -> np.ndarray:
    """(H, W) float32 in [-1, 1]: smooth noise, summed over ``wavelengths`` in pixels.

    All wavelengths have the same strength.
    """
    total, layer = np.zeros(size, np.float32), np.empty(size, np.float32)
    for wavelength in wavelengths:
        shape = [max(2, math.ceil(side / wavelength)) for side in size]
        grid = rng.uniform(-1, 1, shape).astype(np.float32)
        total += cv2.resize(grid, size[::-1], layer, interpolation=cv2.INTER_CUBIC)
    total *= 1.3 / math.sqrt(len(wavelengths))
    return np.clip(total, -1, 1, out=total)


@cache
def unit_circle(corners: int) -> np.ndarray:
    """(corners, 2) points at distance 1 around the origin, the first at (1, 0).

    Read-only, since all callers share the array.
    """
    turns = np.linspace(0, 2 * math.pi, corners, endpoint=False)
    circle = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    circle.flags.writeable = False
    return circle


class Canvas:
    """A picture and its labels, drawn together.

    Attributes: ``rng``: the only source of random numbers. ``image``: (H, W, 3) uint8 RGB.
    ``labels``: (H, W) uint8 labelIds. ``noise``: (1.5 H, 1.5 W) float32 in [-1, 1], from which
    textures are cut. ``haze``: fraction (0-1) of ``haze_color`` in everything drawn next. ``sun``:
    side (-1 left, 1 right) times strength of the light, in [-1, 1].
    """

    def __init__(
        self, rng: np.random.Generator, size: tuple[int, int], haze_color: np.ndarray, sun: float
    ):
        height, width = size
        self.rng = rng
        self.image = np.zeros((height, width, 3), np.uint8)
        self.labels = np.zeros((height, width), np.uint8)
        self.noise = fractal_noise(
            rng, (height * 3 // 2, width * 3 // 2), (height / 4, height / 11, height / 32, 3)
        )
        self.haze, self.haze_color, self.sun = 0.0, haze_color, sun

    def texture(self, height: int, width: int) -> np.ndarray:
        """(height, width) float32 in [-1, 1], cut from the noise at a random position."""
        top = self.rng.integers(self.noise.shape[0] - height + 1)
        left = self.rng.integers(self.noise.shape[1] - width + 1)
        return self.noise[top : top + height, left : left + width]

    def region(self, points: np.ndarray) -> tuple[slice, slice] | None:
        """(rows, columns) of the bounding box of points (N, 2) on the canvas.

        None when it lies outside.
        """
        height, width = self.labels.shape
        # Lists: Python's min and max are faster than NumPy's for a few points.
        across, down = points.T.tolist()
        left, right = max(0, math.floor(min(across))), min(width, math.ceil(max(across)) + 1)
        top, bottom = max(0, math.floor(min(down))), min(height, math.ceil(max(down)) + 1)
        return (slice(top, bottom), slice(left, right)) if right > left and bottom > top else None

    def polygon(
        self, points: np.ndarray, color: np.ndarray, label: int | None = None, grain: float = 0.0
    ) -> None:
        """Fills a polygon (N, 2) of pixels.

        ``label`` None: the labels are unchanged. ``grain`` (0-1): strength of the noise on the
        color.
        """
        if grain:
            region = self.region(points)
            if region is not None:
                mask = _mask(points, region)
                self.paste(region, color, 1 + grain * self.texture(*mask.shape), mask, label)
            return
        fixed = [_fixed_point(points)]
        cv2.fillPoly(self.image, fixed, self._opencv_color(color), cv2.LINE_AA, _SUBPIXEL_BITS)
        if label is not None:
            cv2.fillPoly(self.labels, fixed, label, shift=_SUBPIXEL_BITS)

    def mark(self, points: np.ndarray, label: int) -> None:
        """Labels a polygon (N, 2) of pixels; the picture is unchanged."""
        cv2.fillPoly(self.labels, [_fixed_point(points)], label, shift=_SUBPIXEL_BITS)

    def line(
        self, points: np.ndarray, color: np.ndarray, thickness: int, label: int | None = None
    ) -> None:
        """Draws a polyline (N, 2) of pixels, ``thickness`` pixels wide."""
        fixed = [_fixed_point(points)]
        mixed = self._opencv_color(color)
        cv2.polylines(self.image, fixed, False, mixed, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
        if label is not None:
            cv2.polylines(self.labels, fixed, False, label, thickness, cv2.LINE_8, _SUBPIXEL_BITS)

    def disc(
        self, center: np.ndarray, radius: float, color: np.ndarray, label: int | None = None
    ) -> None:
        """Fills a circle; center (2,) and radius in pixels."""
        self.polygon(center + radius * unit_circle(12), color, label)

    def warp(
        self, picture: np.ndarray, corners: np.ndarray, label: int, alpha: np.ndarray | None = None
    ) -> None:
        """Draws a flat picture (h, w, 3) uint8 in perspective onto four ``corners``.

        ``corners`` (4, 2): top left, top right, bottom right, bottom left. The picture is
        transparent where ``alpha`` (h, w) uint8 is 0; the label covers the whole quadrilateral, as
        annotators draw fences.
        """
        region = self.region(corners)
        if region is None:
            return
        height, width = picture.shape[:2]
        mask = _mask(corners, region)
        source = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        target = (corners - (region[1].start, region[0].start)).astype(np.float32)
        matrix, size = cv2.getPerspectiveTransform(source, target), mask.shape[::-1]
        warped = cv2.warpPerspective(picture, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        self.labels[region][mask] = label
        if alpha is not None:
            mask = mask & (cv2.warpPerspective(alpha, matrix, size) > 127)
        values = np.arange(256)[:, None]
        hazy = to_uint8(values * (1 - self.haze) + self.haze_color * self.haze)  # (256, 3)
        self._put(region, cv2.LUT(warped, hazy[None]), mask)

    def paste(
        self,
        region: tuple[slice, slice],
        color: np.ndarray,
        shade: np.ndarray,
        mask: np.ndarray,
        label: int | None = None,
    ) -> None:
        """Draws ``color`` times ``shade`` (h, w), with haze, where ``mask`` (h, w) bool is set.

        ``region`` has the same size; ``label`` is set there too.
        """
        picture = as_planes(np.float32(color)) * shade  # (3, h, w)
        picture *= 1 - self.haze
        self._put(region, to_picture(picture + as_planes(self.haze_color * self.haze)), mask)
        if label is not None:
            self.labels[region][mask] = label

    def _put(self, region: tuple[slice, slice], picture: np.ndarray, mask: np.ndarray) -> None:
        """Copies the pixels of ``picture`` (h, w, 3) uint8 where ``mask`` (h, w) bool is set."""
        cv2.copyTo(picture, mask.view(np.uint8), self.image[region])

    def shadows(
        self, right: float, forward: float, half_width: float, half_length: float, height: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Outlines on the ground that an object of this position and size (meters) darkens.

        Returns points (right, forward): under it (4, 2), and beside it, away from the sun, (8, 2).
        """
        foot = _CORNERS * (half_width, half_length) + (right, forward)
        return foot, np.concatenate([foot, foot - (self.sun * height * 0.5, -0.25 * height)])

    def _opencv_color(self, color: np.ndarray) -> tuple[int, ...]:
        mixed = (
            channel * (1 - self.haze) + fog * self.haze
            for channel, fog in zip(color.tolist(), self.haze_color.tolist(), strict=True)
        )
        return tuple(min(max(int(channel), 0), 255) for channel in mixed)


def _mask(points: np.ndarray, region: tuple[slice, slice]) -> np.ndarray:
    """(h, w) bool: the pixels of a region that lie in the polygon (N, 2)."""
    rows, columns = region
    mask = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
    fixed = [_fixed_point(points - (columns.start, rows.start))]
    cv2.fillPoly(mask, fixed, 1, shift=_SUBPIXEL_BITS)
    return mask.view(bool)


def _fixed_point(points: np.ndarray) -> np.ndarray:
    """Converts pixels (N, 2) to the integers that the ``shift`` of OpenCV expects."""
    clipped = np.minimum(np.maximum(points, -_FURTHEST_PX), _FURTHEST_PX)
    return np.rint(clipped * 2**_SUBPIXEL_BITS).astype(np.int32)


class Layer(IntEnum):
    """Drawing order, from far to near.

    A row nearer to the road is never hidden by one farther from it.
    """

    BACKDROP = 0
    HOUSES = 1
    BOUNDARIES = 2
    OBJECTS = 3


@dataclass(frozen=True)
class Thing:
    """An object to draw.

    ``forward``: its distance in meters; within a ``layer`` the farthest is drawn first.
    ``shadows``: see Canvas.shadows.
    """

    layer: Layer
    forward: float
    draw: Callable[[], None]
    shadows: tuple[np.ndarray, ...] = ()
