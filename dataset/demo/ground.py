"""The stage of a generated street: the sky, the ground with its markings and shadows, and the hood
of the car that carries the camera.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

from dataset.demo.canvas import (
    LABEL,
    Camera,
    Canvas,
    Thing,
    as_planes,
    fractal_noise,
    hsv,
    to_picture,
)
from dataset.demo.town import GAME, Side, Town

_ROAD = 4  # the middle one of the nine zones of the ground, see _surfaces


class Surface(NamedTuple):
    """What a zone of the ground is made of: class name, color, and strength of the noise on it
    (0-1).
    """

    name: str
    color: np.ndarray
    grain: float


def draw_sky(canvas: Canvas, camera: Camera, town: Town) -> None:
    """A gradient with clouds, torn in sunshine and closed under an overcast sky."""
    rng, (height, width) = canvas.rng, canvas.labels.shape
    rows = min(height, math.ceil(camera.horizon) + 2)
    if town.sunny:
        zenith = hsv(rng.uniform(0.53, 0.63), rng.uniform(0.25, 0.75), rng.uniform(0.55, 0.95))
    else:
        zenith = hsv(rng.uniform(0.5, 0.65), rng.uniform(0, 0.12), rng.uniform(0.5, 0.9))
    descent = (np.arange(rows, dtype=np.float32) / rows)[:, None] ** 1.5  # (h, 1)
    sky = as_planes(zenith) * (1 - descent) + as_planes(canvas.haze_color) * descent  # (3, h, 1)
    clouds = fractal_noise(
        rng, (rows, width), (height, height / 3, height / 8, height / 20)
    )  # (h, W)
    cover = np.clip((clouds + rng.uniform(-0.7, 0.5)) * 1.6, 0, 0.9) * (1 if town.sunny else 0.6)
    cloud = as_planes(hsv(rng.uniform(0.02, 0.6), 0.05, rng.uniform(0.6, 1)))
    picture = cloud * (0.9 + 0.12 * clouds)  # (3, h, W)
    picture *= cover
    picture += sky * (1 - cover)
    canvas.image[:rows] = to_picture(picture)
    canvas.labels[:rows] = LABEL["sky"]


def draw_ground(canvas: Canvas, camera: Camera, town: Town) -> None:
    """Road, verges, sidewalks and gardens, colored pixel by pixel from where the pixel lies on the
    ground.
    """
    rng, (height, width) = canvas.rng, canvas.labels.shape
    top = camera.ground_top
    right, forward = camera.ground(
        np.arange(width, dtype=np.float32)[None], np.arange(top, height, dtype=np.float32)[:, None]
    )
    right = right.astype(np.float32)  # (h, W); forward is (h, 1)
    edges = np.array([*town.left.edges[::-1], *town.right.edges], np.float32)
    zone = np.searchsorted(edges, right)  # (h, W), 0-8
    if town.crossing:
        zone = np.where((forward > town.crossing[0]) & (forward < town.crossing[1]), _ROAD, zone)
    names, colors, grains = zip(*_surfaces(rng, town), strict=True)

    near = np.exp(-forward / 30).astype(np.float32)  # (h, 1): 1 at the camera, 0 far away
    lying = _lying_noise(canvas, right, forward)
    shade = 1 + np.array(grains, np.float32)[zone] * (0.4 + 0.6 * near) * (
        0.6 * lying + 0.4 * canvas.texture(*right.shape)
    )
    paving = np.array([name == "sidewalk" for name in names])[zone]
    tile = rng.uniform(0.5, 1.6)
    joints = (np.mod(right, tile) < 0.06) | (np.mod(forward, tile) < 0.08)
    shade -= 0.25 * near * (paving & joints)
    shade *= 0.92 + 0.16 * (1 - near)
    picture = np.take(np.array(colors, np.float32).T, zone, axis=1) * shade  # (3, h, W)
    kerbs = (np.abs(right - town.left.edges[0]) < 0.14) | (
        np.abs(right - town.right.edges[0]) < 0.14
    )
    np.multiply(picture, 1.18, out=picture, where=kerbs & (zone != _ROAD))

    labels = np.array([LABEL[name] for name in names], np.uint8)[zone]
    paint, strength = _markings(
        rng, town, right, forward, (zone == _ROAD) & (np.abs(right) < town.right.kerb)
    )
    worn = strength * np.clip(0.95 + 0.4 * lying, 0, 1)
    picture *= 1 - worn
    picture += paint * worn
    if town.rails is not None:
        bed = np.abs(right - town.rails) < 1.35
        labels[bed & (zone == _ROAD)] = LABEL["rail track"]
        picture[:, np.abs(np.abs(right - town.rails) - 0.72) < 0.07] *= 0.45
        picture[:, bed] *= 0.93
    haze = 0.35 * (1 - np.exp(-forward / 90))
    picture *= 1 - haze
    canvas.image[top:] = to_picture(picture + as_planes(canvas.haze_color) * haze)
    canvas.labels[top:] = labels


def _surfaces(rng: np.random.Generator, town: Town) -> list[Surface]:
    """Of the nine zones from left to right: beyond, garden, sidewalk, verge, road, verge, sidewalk,
    garden, beyond.
    """
    game = town.look is GAME
    asphalt = hsv(
        rng.choice([0.08, 0.6, 0.9]),
        rng.uniform(0, 0.12),
        rng.uniform(0.38, 0.68) if game else rng.uniform(0.28, 0.55),
    )
    slabs = hsv(
        rng.choice([0.08, 0.1, 0.02, 0.6]),
        rng.uniform(0, 0.22),
        rng.uniform(0.45, 0.8) if game else rng.uniform(0.3, 0.65),
    )

    def earth() -> Surface:
        return Surface(
            "terrain",
            hsv(
                rng.choice([0.25, 0.2, 0.13, 0.08]), rng.uniform(0.25, 0.65), rng.uniform(0.28, 0.6)
            ),
            0.5,
        )

    def beside_road(side: Side) -> list[Surface]:
        verge, garden = earth(), earth()
        if not side.green:
            verge, garden = earth(), Surface("sidewalk", slabs * rng.uniform(0.8, 1.1), 0.3)
        return [verge, Surface("sidewalk", slabs, 0.22), garden, garden]

    left, right = beside_road(town.left), beside_road(town.right)
    return [
        *left[::-1],
        Surface("road", asphalt, rng.uniform(0.12, 0.3) * (0.8 if game else 1.2)),
        *right,
    ]


def _lying_noise(canvas: Canvas, right: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """The canvas' noise in perspective, as if it lay on the ground: (h, W) float32 in [-1, 1]."""
    pixels_per_metre = len(canvas.labels) / 20
    width, height = np.array(canvas.noise.shape[::-1]) - 2.0
    shift_right, shift_forward = canvas.rng.uniform(0, 1000, 2)
    across = np.mod(right * pixels_per_metre + shift_right, width)  # (h, W)
    along = np.broadcast_to(np.mod(forward * pixels_per_metre + shift_forward, height), right.shape)
    return cv2.remap(
        canvas.noise, across.astype(np.float32), along.astype(np.float32), cv2.INTER_LINEAR
    )


def _markings(
    rng: np.random.Generator, town: Town, right: np.ndarray, forward: np.ndarray, road: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Paint on the road: middle line, lane lines, edge lines, a zebra before the crossing.

    Returns its color, planes (3, h, W) or (3, 1, 1), and its strength (h, W) in [0, 1].
    """
    kerb, paint = town.right.kerb, as_planes(np.float32(hsv(0.12, 0.06, rng.uniform(0.65, 0.95))))
    dashes = np.mod(forward + rng.uniform(0, 6), rng.uniform(5, 9)) < 3
    middle = np.abs(right) < 0.08
    if town.look.yellow_lines:
        middle = np.abs(np.abs(right) - 0.16) < 0.07
        paint = np.where(
            middle, as_planes(np.float32(hsv(0.12, 0.7, rng.uniform(0.6, 0.9)))), paint
        )
    elif rng.random() < 0.7:
        middle = middle & dashes
    lines = middle | (np.abs(np.abs(right) - kerb / 2) < 0.07) & dashes & (kerb > 4.5)
    if rng.random() < 0.6:
        lines |= (
            np.abs(np.abs(right) - (kerb - 0.35 if town.look.yellow_lines else kerb - 2.2)) < 0.06
        )
    if town.crossing:
        stop = town.crossing[0] - 4.5
        lines &= forward < stop - 1
        lines |= (forward > stop) & (forward < stop + 3) & (np.mod(right, 1.1) < 0.55)
    return paint, (lines & road) * np.float32(rng.uniform(0.6, 0.95))


def draw_shadows(canvas: Canvas, camera: Camera, things: list[Thing]) -> None:
    """Darken the ground under and beside the things: once, softly, however many shadows overlap."""
    darkness = np.zeros(canvas.labels.shape, np.uint8)
    beside = 30 + int(110 * max(0.0, abs(canvas.sun) - 0.2))
    shadows = [
        shadow for thing in things for shadow in zip(thing.shadows, (150, beside), strict=False)
    ]  # some things have none
    right, forward = np.vstack([np.empty((0, 2)), *(outline for outline, _ in shadows)]).T
    points = np.clip(camera.at(right, 0, forward), -2e4, 2e4).astype(np.int32)
    stop = 0
    for outline, strength in shadows:
        start, stop = stop, stop + len(outline)
        cv2.fillConvexPoly(darkness, cv2.convexHull(points[start:stop]), strength)
    top = min(camera.ground_top, len(darkness))
    soft = cv2.GaussianBlur(
        darkness[top:], (0, 0), max(0.5, len(darkness) / (200 if abs(canvas.sun) > 0.5 else 70))
    )
    canvas.image[top:] = canvas.image[top:] * (1 - soft[..., None] / np.float32(255))


def draw_hood(canvas: Canvas) -> None:
    """The hood of the own car along the lower edge, with the sky's reflection on it."""
    rng, (height, width) = canvas.rng, canvas.labels.shape
    across = np.linspace(0, 1, 24)
    rise = height * (
        0.93 - rng.uniform(0.02, 0.04) * (1 - (2 * across - 1) ** 2) + rng.uniform(-0.01, 0.02)
    )
    rim = np.stack([across * width, rise], axis=1)  # (24, 2)
    canvas.haze = 0.0
    color = hsv(0.6, 0.15, rng.uniform(0.08, 0.25))
    canvas.polygon(
        np.vstack([rim, [(width, height + 9), (0, height + 9)]]), color, LABEL["ego vehicle"], 0.5
    )
    canvas.line(rim, color * 2.2 + 20, max(1, height // 128))
