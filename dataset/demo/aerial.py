"""Generated pictures as a drone sees them from above, with labels of three classes.

The two looks are those of the generated streets: GAME has a regular town with flat roofs, CAMERA
one with bent roads, dull colors and trees over the roads.
"""

import math

import cv2
import numpy as np

from dataset.demo.canvas import fractal_noise, hsv, to_picture
from dataset.demo.scene import GAME, Look, check_size, develop

VERSION = 1
"""Raised when the same seed draws another picture."""

UNLABELLED, VEGETATION, ROAD, BUILDING = 0, 1, 2, 3
"""Values in masks. The edges of roofs are unlabelled, as an annotator leaves what is uncertain."""

_SUPERSAMPLING = 2


def aerial(
    rng: np.random.Generator, look: Look, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one picture from above.

    ``rng``: the only source of random numbers. ``look``: GAME or CAMERA. ``size``: (height, width)
    in pixels. Returns image (H, W, 3) uint8 RGB and mask (H, W) uint8. Raises ValueError for a size
    that is too small to draw.
    """
    check_size(size)
    fine = tuple(_SUPERSAMPLING * side for side in size)
    image = _meadow(rng, look, fine)
    mask = np.full(fine, VEGETATION, np.uint8)
    _draw_roads(rng, look, image, mask)
    _draw_buildings(rng, look, image, mask)
    _draw_trees(rng, look, image, mask)
    image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    mask = np.ascontiguousarray(mask[::_SUPERSAMPLING, ::_SUPERSAMPLING])
    return develop(rng, look, image), mask


def drivable(mask: np.ndarray) -> np.ndarray:
    """A mask of ``aerial`` -> a black and white mask (H, W) uint8: 255 on roads, else 0."""
    return np.where(mask == ROAD, 255, 0).astype(np.uint8)


def _meadow(rng: np.random.Generator, look: Look, size: tuple[int, int]) -> np.ndarray:
    """The ground (H, W, 3) uint8: grass, dry in places."""
    noise = fractal_noise(rng, size, (size[0] / 3, size[0] / 12, 5))
    hue = rng.uniform(0.22, 0.3) if look is GAME else rng.uniform(0.15, 0.22)
    grass, dry = hsv(hue, 0.55, 0.5), hsv(hue - 0.07, 0.4, 0.62)
    blend = (noise + 1) / 2
    return to_picture(grass[:, None, None] * (1 - blend) + dry[:, None, None] * blend)


def _draw_roads(rng: np.random.Generator, look: Look, image: np.ndarray, mask: np.ndarray) -> None:
    """Two or three roads across the picture; straight in GAME, bent in CAMERA."""
    height, width = mask.shape
    reach, unit = math.hypot(height, width), min(height, width)
    turn = rng.uniform(0, math.pi)
    for number in range(rng.integers(2, 4)):
        angle = turn + number * math.pi / 2 + rng.normal(0, 0.05 if look is GAME else 0.25)
        along = np.array([math.cos(angle), math.sin(angle)])
        across = np.array([-along[1], along[0]])
        middle = rng.uniform(0.2, 0.8, 2) * (width, height)
        t = np.linspace(-reach, reach, 60)[:, None]
        bend = 0 if look is GAME else rng.uniform(-0.25, 0.25) / reach
        points = np.round(middle + t * along + bend * t**2 * across).astype(np.int32)
        thickness = max(3, round(unit * rng.uniform(0.06, 0.13)))
        gray = hsv(0.6, 0.05, rng.uniform(0.35, 0.6))
        cv2.polylines(image, [points], False, gray.tolist(), thickness)
        cv2.polylines(mask, [points], False, ROAD, thickness)
        for first, last in zip(points[::2], points[1::2], strict=True):  # the middle line
            cv2.line(image, first.tolist(), last.tolist(), (225, 225, 215), max(1, unit // 130))


def _draw_buildings(
    rng: np.random.Generator, look: Look, image: np.ndarray, mask: np.ndarray
) -> None:
    """Houses that stand on no road, with shadows and unlabelled edges."""
    height, width = mask.shape
    unit = min(height, width)
    roads = cv2.dilate((mask == ROAD).astype(np.uint8), np.ones((unit // 16,) * 2))
    shadow = np.round(rng.uniform(0.02, 0.05, 2) * unit).astype(np.int32)
    edge = max(1, unit // 90)
    for _ in range(rng.integers(8, 16)):
        center = rng.uniform(0, 1, 2) * (width, height)
        sides = rng.uniform(0.1, 0.26, 2) * unit
        angle = 0.0 if look is GAME else rng.uniform(0, 90)
        box = np.round(cv2.boxPoints((center.tolist(), sides.tolist(), angle))).astype(np.int32)
        own = cv2.fillPoly(np.zeros_like(mask), [box], 1)
        if (own & (roads | (mask != VEGETATION))).any():
            continue
        dark = cv2.fillPoly(np.zeros_like(mask), [box + shadow], 1) & (mask != BUILDING)
        image[dark > 0] = image[dark > 0] // 2
        roof = hsv(
            rng.choice([0.02, 0.06, 0.58, 0.0]), rng.uniform(0.1, 0.6), rng.uniform(0.4, 0.9)
        )
        cv2.fillPoly(image, [box], roof.tolist())
        ridge = [tuple(((box[i] + box[i + 1]) // 2).tolist()) for i in (0, 2)]
        cv2.line(image, *ridge, (0.75 * roof).tolist(), edge)
        cv2.fillPoly(mask, [box], BUILDING)
        cv2.polylines(mask, [box], True, UNLABELLED, edge)


def _draw_trees(rng: np.random.Generator, look: Look, image: np.ndarray, mask: np.ndarray) -> None:
    """Crowns of trees; in CAMERA some hang over roads."""
    height, width = mask.shape
    unit = min(height, width)
    for _ in range(rng.integers(10, 30)):
        center = np.round(rng.uniform(0, 1, 2) * (width - 1, height - 1)).astype(int)
        radius = max(2, round(unit * rng.uniform(0.015, 0.045)))
        below = mask[center[1], center[0]]
        if below in (BUILDING, UNLABELLED) or (look is GAME and below == ROAD):
            continue
        color = hsv(rng.uniform(0.25, 0.38), rng.uniform(0.4, 0.7), rng.uniform(0.2, 0.45))
        cv2.circle(image, center.tolist(), radius, color.tolist(), -1)
        light = (center - radius // 3).tolist()
        cv2.circle(image, light, radius // 2, (1.3 * color).clip(0, 255).tolist(), -1)
        cv2.circle(mask, center.tolist(), radius, VEGETATION, -1)
