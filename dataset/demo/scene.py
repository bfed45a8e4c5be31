"""Generated streets with labels, in two looks, for use without licensed data.

``street(rng, look, size)`` draws one. The two looks stand for the two domains: GAME is bright,
saturated and sharp, with wide roads, gardens and hard shadows. CAMERA is dim, greenish, soft and
noisy, with narrow streets between tall houses, parked cars and bicycles, behind the hood of the ego
vehicle. They share geometry and classes, but not appearance, layout and class frequencies: a domain
gap. Every object has a random color, so that no class is recognized by color alone.

town.py plans a street, camera.py maps it to pixels, canvas.py holds the drawing tools, and the
other modules draw its parts.
"""

import math

import cv2
import numpy as np

from dataset.demo.canvas import Canvas, hsv
from dataset.demo.ground import draw_ground, draw_hood, draw_shadows, draw_sky
from dataset.demo.houses import backdrop, boundaries, houses
from dataset.demo.people import people, two_wheelers
from dataset.demo.roadside import furniture, greenery
from dataset.demo.town import CAMERA, GAME, LOOKS, Look, plan_camera, plan_town
from dataset.demo.traffic import traffic

__all__ = [
    "CAMERA",
    "GAME",
    "LOOKS",
    "MIN_SIZE",
    "VERSION",
    "Look",
    "check_size",
    "develop",
    "street",
]

VERSION = 1
"""Raised when the same seed draws another picture, so that a folder never mixes two versions."""

MIN_SIZE = (32, 64)
"""(height, width) in pixels below which a street cannot be recognized."""

_SUPERSAMPLING = 2


def street(
    rng: np.random.Generator, look: Look, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one street.

    ``rng``: the only source of random numbers. ``look``: one of LOOKS. ``size``: (height, width) in
    pixels, of any aspect ratio. Returns image (H, W, 3) uint8 RGB and label_ids (H, W) uint8.
    Raises ValueError for a size below MIN_SIZE.
    """
    check_size(size)
    fine_size = tuple(_SUPERSAMPLING * side for side in size)
    town = plan_town(rng, look)
    camera = plan_camera(rng, town, fine_size)
    haze_hue = rng.uniform(0.05, 0.6) if look is GAME and town.sunny else rng.uniform(0.5, 0.65)
    haze_color = hsv(haze_hue, rng.uniform(0.0, 0.2), rng.uniform(0.6, 0.95))
    sun = rng.choice([-1.0, 1.0]) * (rng.uniform(0.6, 1) if town.sunny else 0.25)
    canvas = Canvas(rng, fine_size, haze_color, sun)

    things = []
    for row in (backdrop, houses, greenery, boundaries, furniture):
        things += row(canvas, camera, town)
    vehicles, taken = traffic(canvas, camera, town)
    things += vehicles + two_wheelers(canvas, camera, town, taken) + people(canvas, camera, town)

    draw_sky(canvas, camera, town)
    draw_ground(canvas, camera, town)
    draw_shadows(canvas, camera, things)
    thickness = rng.uniform(0.15, 0.7)
    for thing in sorted(things, key=lambda thing: (thing.layer, -thing.forward)):
        canvas.haze = thickness * (1 - math.exp(-thing.forward / 90))
        thing.draw()
    if look.hood:
        draw_hood(canvas)
    image = cv2.resize(canvas.image, size[::-1], interpolation=cv2.INTER_AREA)
    label_ids = np.ascontiguousarray(canvas.labels[::_SUPERSAMPLING, ::_SUPERSAMPLING])
    return develop(rng, look, image), label_ids


def check_size(size: tuple[int, int]) -> None:
    """Raises ValueError for a (height, width) at which a street would be unrecognizable."""
    if size[0] < MIN_SIZE[0] or size[1] < MIN_SIZE[1]:
        raise ValueError(
            f"A street of {size[0]}x{size[1]} pixels (height x width) is too small to draw: poles"
            f" and people would vanish. Expected at least {MIN_SIZE[0]}x{MIN_SIZE[1]}; ask for a"
            " larger size, 128x256 say."
        )


def develop(rng: np.random.Generator, look: Look, image: np.ndarray) -> np.ndarray:
    """Applies color, contrast, sharpness and noise of the look to an (H, W, 3) uint8 image."""
    height, width = image.shape[:2]
    picture = image.astype(np.float32) / 255
    # Several times faster than mean(axis=2).
    grey = (picture[..., :1] + picture[..., 1:2] + picture[..., 2:]) / 3  # (H, W, 1)
    if look is GAME:
        picture = grey + rng.uniform(1.1, 1.5) * (picture - grey)
        picture = np.clip(picture * np.float32([1.07, 1.0, 0.9 + rng.uniform(-0.06, 0.08)]), 0, 1)
        contrast = picture * picture * (3 - 2 * picture) - picture
        picture = picture * rng.uniform(0.85, 1.05) + 0.35 * contrast
        picture += 0.5 * (picture - cv2.GaussianBlur(picture, (0, 0), 1.0))
        picture += rng.standard_normal((height, width, 1), np.float32) * 0.006
    else:
        picture = grey + rng.uniform(0.5, 0.75) * (picture - grey)
        cast = np.float32([0.9, 1.0, 0.92]) * np.float32(1 + rng.normal(0, 0.02, 3))
        exposed = np.clip(picture * cast * rng.uniform(1.05, 1.5), 0, 1)  # the sky may saturate
        picture = exposed ** rng.uniform(1.0, 1.25)
        picture = 0.04 + rng.uniform(0.7, 0.9) * picture
        sigma = rng.uniform(0.45, 0.75) * max(1.0, height / 256)
        picture = cv2.GaussianBlur(picture, (0, 0), sigma)
        across = np.linspace(-1, 1, width, dtype=np.float32)[None]
        down = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        picture *= (1 - 0.16 * (across**2 + down**2))[..., None]
        noise = rng.standard_normal((height, width, 3), np.float32)
        picture += rng.uniform(0.008, 0.022) * (0.6 * noise + 0.7 * noise[..., :1])
    return np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)
