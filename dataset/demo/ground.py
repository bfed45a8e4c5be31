"""Ground and sky of a generated street: markings, shadows, and the hood of the camera car."""

import math
from typing import NamedTuple

import cv2
import numpy as np

from dataset.demo.camera import Camera
from dataset.demo.canvas import LABEL, Canvas, Thing, as_planes, fractal_noise, hsv, to_picture
from dataset.demo.town import GAME, Side, Town

_ROAD = 4
"""Index of the road among the nine zones of the ground, see _surfaces."""


class Surface(NamedTuple):
    """Material of a zone of the ground.

    ``name``: its class. ``grain`` (0-1): strength of the noise on the color.
    """

    name: str
    color: np.ndarray
    grain: float


def draw_sky(canvas: Canvas, camera: Camera, town: Town) -> None:
    """Draws a gradient with clouds: some in sunshine, many under an overcast sky."""
    rng, (height, width) = canvas.rng, canvas.labels.shape
    rows = min(height, math.ceil(camera.horizon) + 2)
    if town.sunny:
        zenith = hsv(rng.uniform(0.53, 0.63), rng.uniform(0.25, 0.75), rng.uniform(0.55, 0.95))
    else:
        zenith = hsv(rng.uniform(0.5, 0.65), rng.uniform(0, 0.12), rng.uniform(0.5, 0.9))
    descent = (np.arange(rows, dtype=np.float32) / rows)[:, None] ** 1.5  # (h, 1)
    sky = as_planes(zenith) * (1 - descent) + as_planes(canvas.haze_color) * descent  # (3, h, 1)
    wavelengths = (height, height / 3, height / 8, height / 20)
    clouds = fractal_noise(rng, (rows, width), wavelengths)  # (h, W)
    cover = np.clip((clouds + rng.uniform(-0.7, 0.5)) * 1.6, 0, 0.9) * (1 if town.sunny else 0.6)
    cloud = as_planes(hsv(rng.uniform(0.02, 0.6), 0.05, rng.uniform(0.6, 1)))
    picture = cloud * (0.9 + 0.12 * clouds)  # (3, h, W)
    picture *= cover
    picture += sky * (1 - cover)
    canvas.image[:rows] = to_picture(picture)
    canvas.labels[:rows] = LABEL["sky"]


def draw_ground(canvas: Canvas, camera: Camera, town: Town) -> None:
    """Draws road, verges, sidewalks and gardens.

    The color of each pixel follows from its position on the ground.
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
    noise = 0.6 * lying + 0.4 * canvas.texture(*right.shape)
    shade = 1 + np.array(grains, np.float32)[zone] * (0.4 + 0.6 * near) * noise
    paving = np.array([name == "sidewalk" for name in names])[zone]
    tile = rng.uniform(0.5, 1.6)
    joints = (np.mod(right, tile) < 0.06) | (np.mod(forward, tile) < 0.08)
    shade -= 0.25 * near * (paving & joints)
    shade *= 0.92 + 0.16 * (1 - near)
    picture = np.take(np.array(colors, np.float32).T, zone, axis=1) * shade  # (3, h, W)
    left_curb, right_curb = town.left.edges[0], town.right.edges[0]
    curbs = (np.abs(right - left_curb) < 0.14) | (np.abs(right - right_curb) < 0.14)
    np.multiply(picture, 1.18, out=picture, where=curbs & (zone != _ROAD))

    labels = np.array([LABEL[name] for name in names], np.uint8)[zone]
    road = (zone == _ROAD) & (np.abs(right) < town.right.curb)
    paint, strength = _markings(rng, town, right, forward, road)
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
    """Surfaces of the nine zones of the ground, from left to right.

    These are: beyond, garden, sidewalk, verge, road, verge, sidewalk, garden, beyond.
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
        hue = rng.choice([0.25, 0.2, 0.13, 0.08])
        return Surface("terrain", hsv(hue, rng.uniform(0.25, 0.65), rng.uniform(0.28, 0.6)), 0.5)

    def beside_road(side: Side) -> list[Surface]:
        verge, garden = earth(), earth()
        if not side.green:
            verge, garden = earth(), Surface("sidewalk", slabs * rng.uniform(0.8, 1.1), 0.3)
        return [verge, Surface("sidewalk", slabs, 0.22), garden, garden]

    left, right = beside_road(town.left), beside_road(town.right)
    road = Surface("road", asphalt, rng.uniform(0.12, 0.3) * (0.8 if game else 1.2))
    return [*left[::-1], road, *right]


def _lying_noise(canvas: Canvas, right: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """(h, W) float32 in [-1, 1]: the noise of the canvas in perspective, as if on the ground."""
    pixels_per_meter = len(canvas.labels) / 20
    width, height = np.array(canvas.noise.shape[::-1]) - 2.0
    shift_right, shift_forward = canvas.rng.uniform(0, 1000, 2)
    across = np.mod(right * pixels_per_meter + shift_right, width)  # (h, W)
    along = np.broadcast_to(np.mod(forward * pixels_per_meter + shift_forward, height), right.shape)
    across, along = across.astype(np.float32), along.astype(np.float32)
    return cv2.remap(canvas.noise, across, along, cv2.INTER_LINEAR)


def _markings(
    rng: np.random.Generator, town: Town, right: np.ndarray, forward: np.ndarray, road: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Road markings: middle line, lane lines, edge lines, a zebra before the crossing.

    Returns their color, planes (3, h, W) or (3, 1, 1), and their strength (h, W) in [0, 1].
    """
    curb, paint = town.right.curb, as_planes(np.float32(hsv(0.12, 0.06, rng.uniform(0.65, 0.95))))
    dashes = np.mod(forward + rng.uniform(0, 6), rng.uniform(5, 9)) < 3
    middle = np.abs(right) < 0.08
    if town.look.yellow_lines:
        middle = np.abs(np.abs(right) - 0.16) < 0.07
        yellow = as_planes(np.float32(hsv(0.12, 0.7, rng.uniform(0.6, 0.9))))
        paint = np.where(middle, yellow, paint)
    elif rng.random() < 0.7:
        middle = middle & dashes
    lines = middle | (np.abs(np.abs(right) - curb / 2) < 0.07) & dashes & (curb > 4.5)
    if rng.random() < 0.6:
        edge = curb - 0.35 if town.look.yellow_lines else curb - 2.2
        lines |= np.abs(np.abs(right) - edge) < 0.06
    if town.crossing:
        stop = town.crossing[0] - 4.5
        lines &= forward < stop - 1
        lines |= (forward > stop) & (forward < stop + 3) & (np.mod(right, 1.1) < 0.55)
    return paint, (lines & road) * np.float32(rng.uniform(0.6, 0.95))


def draw_shadows(canvas: Canvas, camera: Camera, things: list[Thing]) -> None:
    """Darkens the ground under and beside the objects, softly; overlaps count once."""
    darkness = np.zeros(canvas.labels.shape, np.uint8)
    beside = 30 + int(110 * max(0.0, abs(canvas.sun) - 0.2))
    # Not strict: some objects have no shadows.
    shadows = [
        shadow for thing in things for shadow in zip(thing.shadows, (150, beside), strict=False)
    ]
    right, forward = np.vstack([np.empty((0, 2)), *(outline for outline, _ in shadows)]).T
    points = np.clip(camera.at(right, 0, forward), -2e4, 2e4).astype(np.int32)
    stop = 0
    for outline, strength in shadows:
        start, stop = stop, stop + len(outline)
        cv2.fillConvexPoly(darkness, cv2.convexHull(points[start:stop]), strength)
    top = min(camera.ground_top, len(darkness))
    sigma = max(0.5, len(darkness) / (200 if abs(canvas.sun) > 0.5 else 70))
    soft = cv2.GaussianBlur(darkness[top:], (0, 0), sigma)
    canvas.image[top:] = canvas.image[top:] * (1 - soft[..., None] / np.float32(255))


def draw_hood(canvas: Canvas) -> None:
    """Draws the hood of the ego vehicle along the lower edge, with the reflected sky."""
    rng, (height, width) = canvas.rng, canvas.labels.shape
    across = np.linspace(0, 1, 24)
    arch = rng.uniform(0.02, 0.04) * (1 - (2 * across - 1) ** 2)
    rise = height * (0.93 - arch + rng.uniform(-0.01, 0.02))
    rim = np.stack([across * width, rise], axis=1)  # (24, 2)
    canvas.haze = 0.0
    color = hsv(0.6, 0.15, rng.uniform(0.08, 0.25))
    outline = np.vstack([rim, [(width, height + 9), (0, height + 9)]])
    canvas.polygon(outline, color, LABEL["ego vehicle"], 0.5)
    canvas.line(rim, color * 2.2 + 20, max(1, height // 128))
