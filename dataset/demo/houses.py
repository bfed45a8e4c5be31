"""Buildings of a generated street: houses, walls, fences and hedges, and the backdrop."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np

from dataset.demo.camera import NEAR_M, Camera, Place
from dataset.demo.canvas import (
    LABEL,
    Canvas,
    Layer,
    Thing,
    as_planes,
    fractal_noise,
    hsv,
    lit,
    to_picture,
)
from dataset.demo.town import CAMERA, GAME, Look, Town

_END_M = 130.0
"""Distance at which the rows of houses end."""
_FLOOR_M = 3.2
"""Height of a floor."""

Painter = Callable[[float, float, float], tuple[np.ndarray, np.ndarray | None]]
"""(meters wide, meters tall, pixels per meter) -> a flat piece of a boundary.

Returns a picture (h, w, 3) uint8 and, if it has holes, alpha (h, w) uint8.
"""


class Stretch(NamedTuple):
    """A wall along the street, in meters: right coordinate, from near to far, and height."""

    x: float
    near: float
    far: float
    tall: float

    def corners(self, camera: Camera) -> np.ndarray:
        """(4, 2) pixels: the corners, for Canvas.warp."""
        x, near, far, tall = self
        first, last = (near, far) if x < camera.right else (far, near)
        return camera.project([(x, tall, first), (x, tall, last), (x, 0, last), (x, 0, first)])

    def sharpness(self, camera: Camera, least: float, most: float) -> float:
        """Pixels per meter for a picture of the wall, between ``least`` and ``most``."""
        return float(np.clip(0.8 * camera.focal / math.sqrt(self.near * self.far), least, most))


def backdrop(canvas: Canvas, camera: Camera, town: Town) -> list[Thing]:
    """Objects that close the view where the rows of houses end.

    Hills, a skyline or a row of trees; perhaps a house across the end of the street.
    """
    rng, width = canvas.rng, canvas.labels.shape[1]
    kind = rng.choice(["hills", "skyline", "trees"])
    label = LABEL["building" if kind == "skyline" else "vegetation"]
    steps = {"hills": 40, "skyline": 60, "trees": 120}[kind]
    noise = np.abs(fractal_noise(rng, (1, steps), (steps / 3, steps / 9, 2)))[0]
    heights = np.repeat(noise + rng.uniform(0.1, 0.4), 2)
    if kind == "skyline":
        heights = np.roll(heights, 1)  # steps instead of slopes
    across = np.repeat(np.linspace(-0.05, 1.05, steps), 2) * width
    rise = camera.horizon - heights * camera.focal * rng.uniform(0.05, 0.12)
    foot = [(1.05 * width, camera.horizon + 3), (-0.05 * width, camera.horizon + 3)]
    outline = np.vstack([np.stack([across, rise], axis=1), foot])
    color = hsv(rng.random(), 0.15, rng.uniform(0.3, 0.7)) if kind == "skyline" else town.leaf(rng)
    things = [Thing(Layer.BACKDROP, 200.0, partial(canvas.polygon, outline, color, label, 0.25))]
    if rng.random() < 0.5:
        draw = partial(_draw_house_across, canvas, camera, town)
        things.append(Thing(Layer.BACKDROP, _END_M, draw))
    return things


def _draw_house_across(canvas: Canvas, camera: Camera, town: Town) -> None:
    rng = canvas.rng
    tall, middle, half = rng.uniform(8, 22), rng.uniform(-15, 15), rng.uniform(15, 40)
    place = Place(camera, middle - camera.bend * _END_M**2 * rng.uniform(0, 1), _END_M)
    corners = place([(-half, tall, 0), (half, tall, 0), (half, 0, 0), (-half, 0, 0)])
    canvas.warp(_facade(rng, town.look, 2 * half, tall, 6.0), corners, LABEL["building"])


def houses(canvas: Canvas, camera: Camera, town: Town) -> list[Thing]:
    """A row of houses on each side, with gaps; sometimes a park instead of a row."""
    rng, look, things = canvas.rng, town.look, []
    for side in town.sides:
        start = rng.uniform(-6, 2)
        park = rng.random() < look.gap_share / 2
        while start < _END_M:
            stop = start + rng.uniform(8, 24)
            is_free = not park and stop > 3 and town.beside_crossing(start, stop)
            if is_free and rng.random() > look.gap_share:
                near = max(start, NEAR_M + 0.2)
                tall = 3.3 * int(rng.integers(*look.floors, endpoint=True)) + rng.uniform(0.6, 1.5)
                if look is GAME and rng.random() < 0.7:
                    tall = min(tall, 3.3 * int(rng.integers(1, 3, endpoint=True)) + 1)
                shadows = canvas.shadows(
                    side.sign * (side.front + 6), (near + stop) / 2, 6, (stop - near) / 2, tall
                )
                wall = Stretch(side.sign * side.front, near, stop, tall)
                draw = partial(_draw_house, canvas, camera, town, wall, side.sign)
                things.append(Thing(Layer.HOUSES, near, draw, shadows))
            start = stop + (rng.uniform(2, 8) if rng.random() < look.gap_share else 0)
    return things


def _draw_house(canvas: Canvas, camera: Camera, town: Town, street: Stretch, side: int) -> None:
    """Draws the gable that faces the camera, the roof, and the front along the ``street``.

    ``side``: -1 left of the road, 1 right.
    """
    rng, label, (x, near, far, tall) = canvas.rng, LABEL["building"], street
    deep = side * rng.uniform(8, 14)
    back = x + deep
    front = _facade(rng, town.look, far - near, tall, street.sharpness(camera, 3, 26))
    wall = np.array(cv2.sumElems(front)[:3]) / (front.size // 3) * 0.85
    light = 0.8 - 0.28 * side * canvas.sun
    gable = [(x, tall, near), (back, tall, near), (back, 0, near), (x, 0, near)]
    canvas.polygon(camera.project(gable), wall, label, 0.08)
    if tall < 20 and rng.random() < (0.75 if town.look is CAMERA else 0.45):
        ridge, middle = tall + rng.uniform(1.5, 3.5), x + deep / 2
        roof = hsv(rng.choice([0.02, 0.05, 0.6]), rng.uniform(0.1, 0.6), rng.uniform(0.2, 0.55))
        top = [(x, tall, near), (middle, ridge, near), (back, tall, near)]
        slope = [(x, tall, near), (x, tall, far), (middle, ridge, far), (middle, ridge, near)]
        canvas.polygon(camera.project(top), wall, label, 0.08)
        canvas.polygon(camera.project(slope), roof * light, label, 0.25)
    canvas.warp(lit(front, light), street.corners(camera), label)


def _facade(
    rng: np.random.Generator, look: Look, wide: float, tall: float, sharpness: float
) -> np.ndarray:
    """A flat front of ``wide`` x ``tall`` meters: plaster or brick, windows, a ground floor.

    ``sharpness``: pixels per meter. Returns (h, w, 3) uint8.
    """
    height, width = max(4, round(tall * sharpness)), max(4, round(wide * sharpness))
    saturation = rng.uniform(0.05, 0.5) if look is GAME else rng.uniform(0, 0.35)
    base = hsv(
        rng.choice([0.08, 0.1, 0.04, 0.6, rng.random()]), saturation, rng.uniform(0.35, 0.95)
    )
    noise = fractal_noise(rng, (height, width), (height / 2, 3 * sharpness, sharpness / 3, 2))
    dirt = np.linspace(0.04, -0.08, height, dtype=np.float32)[:, None]
    front = as_planes(np.float32(base)) * (1 + rng.uniform(0.03, 0.12) * noise + dirt)  # (3, h, w)
    if rng.random() < 0.3:
        front[:, :: max(3, round(sharpness / 3))] *= 0.85  # courses of brick
    front = to_picture(front)

    floors, columns = max(1, int(tall / _FLOOR_M)), max(1, int(wide / rng.uniform(1.8, 3.6)))
    # Fractions of its column and floor that a window takes.
    share_across, share_up = rng.uniform(0.35, 0.8), rng.uniform(0.4, 0.65)
    frame = (base * rng.choice([0.55, 1.25])).tolist()
    glass = hsv(rng.uniform(0.5, 0.65), rng.uniform(0.05, 0.45), rng.uniform(0.15, 0.55))
    shop = floors > 1 and rng.random() < 0.5
    half = share_across * width / columns / 2
    for floor in range(floors):
        ceiling = height - (floor + 1) * height / (tall / _FLOOR_M)
        lintel = ceiling + 0.25 * _FLOOR_M * sharpness * (1.1 - share_up)
        top, bottom = round(lintel), round(lintel + share_up * _FLOOR_M * sharpness)
        for column in range(columns):
            left = (column + 0.5) * width / columns - half
            box = (round(left), top, round(left + 2 * half), bottom)
            _draw_window(front, box, frame, glass, rng)
        if rng.random() < 0.3:
            ends = (0, round(ceiling)), (width, round(ceiling))
            cv2.line(front, *ends, (base * 0.7).tolist(), max(1, round(sharpness / 4)))
    if shop:
        _draw_shops(front, sharpness, rng)
    _fill(front, (0, 0, width, round(0.4 * sharpness)), base * rng.uniform(0.6, 1.2))
    return front


def _draw_window(
    front: np.ndarray,
    box: tuple[int, int, int, int],
    frame: list[float],
    glass: np.ndarray,
    rng: np.random.Generator,
) -> None:
    left, top, right, bottom = box
    cv2.rectangle(front, (left - 1, top - 1), (right + 1, bottom + 1), frame, -1)
    is_dark = rng.random() < 0.85
    if is_dark:
        pane = glass * rng.uniform(0.6, 1.3)
    else:
        pane = hsv(0.12, rng.uniform(0, 0.4), rng.uniform(0.6, 0.9))
    _fill(front, box, pane)
    if right - left > 5:
        middle = (left + right) // 2
        cv2.line(front, (middle, top), (middle, bottom), frame, 1)


def _draw_shops(front: np.ndarray, sharpness: float, rng: np.random.Generator) -> None:
    """Draws a ground floor of shop windows, each under a sign board."""
    height, width = front.shape[:2]
    top, bottom = round(height - 3.1 * sharpness), round(height - 0.4 * sharpness)
    left, inset = 0, round(0.3 * sharpness)
    while left < width:
        right = left + round(rng.uniform(3, 7) * sharpness) + 1
        wall = hsv(rng.random(), rng.uniform(0, 0.6), rng.uniform(0.2, 0.8))
        _fill(front, (left, top, right, height), wall)
        pane = hsv(0.6, rng.uniform(0, 0.4), rng.uniform(0.08, 0.4))
        _fill(front, (left + inset, top + round(0.8 * sharpness), right - inset, bottom), pane)
        board = hsv(rng.random(), rng.uniform(0.2, 0.9), rng.uniform(0.3, 0.95))
        board_bottom = top + round(rng.uniform(0.5, 1.1) * sharpness)
        _fill(front, (left + inset, top, right - inset, board_bottom), board)
        left = right


def _fill(picture: np.ndarray, box: tuple[int, int, int, int], color: np.ndarray) -> None:
    """Fills a box (left, top, right, bottom; pixels, inclusive) with one color."""
    left, top, right, bottom = box
    cv2.rectangle(picture, (left, top), (right, bottom), color.tolist(), -1)


def boundaries(canvas: Canvas, camera: Camera, town: Town) -> list[Thing]:
    """Walls, fences and hedges between sidewalk and garden, or a railing at the curb."""
    rng, things = canvas.rng, []
    for side in town.sides:
        railing = not side.has_garden
        if railing and rng.random() > 0.25:
            continue
        x, start = side.sign * (side.curb + 0.3 if railing else side.walk), rng.uniform(-3, 3)
        kind = "fence"
        if not railing:
            kind = rng.choice(["wall", "fence", "hedge", "none"], p=[0.36, 0.34, 0.1, 0.2])
        if kind == "none":
            continue
        tall = rng.uniform(0.9, 1.3) if railing else rng.uniform(0.9, 2.6)
        painter = _boundary_painter(rng, kind, town)
        while start < 90:
            stop = start + rng.uniform(5, 9)
            near = max(start, NEAR_M + 0.2)
            if stop > near + 1 and town.beside_crossing(start, stop):
                shadows = canvas.shadows(x, (near + stop) / 2, 0.1, (stop - near) / 2, tall)
                wall = Stretch(x, near, stop, tall)
                draw = partial(_draw_boundary, canvas, camera, painter, kind, wall)
                things.append(Thing(Layer.BOUNDARIES, near, draw, shadows))
            start = stop + (rng.uniform(2, 6) if rng.random() < 0.15 else 0)
    return things


def _boundary_painter(rng: np.random.Generator, kind: str, town: Town) -> Painter:
    """A painter for all pieces of one boundary, which share color and pattern."""
    if kind == "hedge":
        color = town.leaf(rng)
    else:
        hue = rng.choice([0.08, 0.05, 0.6, rng.random()])
        color = hsv(hue, rng.uniform(0, 0.45), rng.uniform(0.2, 0.9))
    pitch, solid, mesh = rng.uniform(0.13, 0.3), rng.random() < 0.35, rng.random() < 0.3
    contrast = {"hedge": 0.5, "wall": 0.22, "fence": 0.12}[kind]

    def paint(wide: float, tall: float, sharpness: float) -> tuple[np.ndarray, np.ndarray | None]:
        height, width = max(4, round(tall * sharpness)), max(4, round(wide * sharpness))
        noise = fractal_noise(rng, (height, width), (height, height / 3, max(2, sharpness / 5), 2))
        picture = as_planes(np.float32(color)) * (1 + contrast * noise)  # (3, h, w)
        alpha = None
        if kind == "wall":
            picture[:, :: max(3, round(0.4 * sharpness))] *= 0.8  # joints
            picture[:, : max(1, round(0.14 * sharpness))] *= 1.25  # coping
        elif kind == "fence":
            bars = np.mod(np.arange(width) / sharpness, pitch) < max(0.35 * pitch, 1 / sharpness)
            rail_pitch = pitch if mesh else tall * 0.8
            rails = np.mod(np.arange(height) / sharpness + 0.02, rail_pitch) < 0.08
            open_work = bars[None] | rails[:, None]  # (h, w)
            np.multiply(picture, 0.55, out=picture, where=~open_work)
            alpha = None if solid else open_work.astype(np.uint8) * 255
        return to_picture(picture), alpha

    return paint


def _draw_boundary(
    canvas: Canvas, camera: Camera, painter: Painter, kind: str, wall: Stretch
) -> None:
    length, sharpness = wall.far - wall.near, wall.sharpness(camera, 4, 30)
    picture, alpha = painter(length, wall.tall, sharpness)
    light = 0.85 - 0.25 * np.sign(wall.x) * canvas.sun
    label = LABEL["vegetation" if kind == "hedge" else kind]
    canvas.warp(lit(picture, light), wall.corners(camera), label, alpha)
