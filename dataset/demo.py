"""Generated streets: pictures and labels of a made-up town, seeded, in two looks, for everyone who has no licensed data yet.

``street(rng, look, size)`` draws one. The two looks stand for the two domains of the field: GAME is bright, saturated and sharp, with wide roads,
gardens and hard shadows; CAMERA is dim, greenish, soft and noisy, with narrow streets between tall houses, parked cars and bicycles, behind the hood
of the car that carries it. Geometry and classes are shared, appearance, layout and class frequencies are not: a gap to adapt over.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np

from dataset.demo_objects import (
    LABEL,
    NEAR_M,
    Body,
    Camera,
    Canvas,
    Place,
    bicycle,
    bollard,
    car,
    clutter,
    coach,
    draw_body,
    fractal_noise,
    hsv,
    lamp_post,
    motorcycle,
    palm,
    person,
    rider,
    sign,
    traffic_light,
    tree,
    truck,
    utility_pole,
)

VERSION = 1
"""Raised whenever the same seed draws another picture, so that one folder never mixes two generations."""

MIN_SIZE = (32, 64)
"""(height, width) in pixels under which a street cannot be told."""

_SUPERSAMPLING = 2
_FAR_M = 130.0
# The painter's layers, far to near; within a layer, the farthest first. A row nearer to the road is never hidden by one farther from it.
_BACKDROP, _HOUSES, _BOUNDARIES, _OBJECTS = range(4)


@dataclass(frozen=True)
class Look:
    """How one domain looks. Pairs are ranges to draw from, in metres unless a name says otherwise; the *_share fields are probabilities."""

    name: str
    focal_widths: tuple[float, float]
    camera_height: tuple[float, float]
    road_half: tuple[float, float]
    sidewalk: tuple[float, float]
    floors: tuple[int, int]
    garden_share: float
    gap_share: float
    tree_share: float
    palm_share: float
    parked_share: float
    crossing_share: float
    people: tuple[int, int]
    bicycles: tuple[int, int]
    motorcycles: tuple[int, int]
    truck_share: float
    bus_share: float
    train_share: float
    sunny_share: float
    yellow_lines: bool
    hood: bool
    plate: int


GAME = Look(
    name="game",
    focal_widths=(0.75, 0.95),
    camera_height=(1.5, 2.6),
    road_half=(5.0, 8.5),
    sidewalk=(2.0, 4.0),
    floors=(1, 9),
    garden_share=0.65,
    gap_share=0.3,
    tree_share=0.3,
    palm_share=0.5,
    parked_share=0.25,
    crossing_share=0.4,
    people=(0, 7),
    bicycles=(0, 2),
    motorcycles=(0, 2),
    truck_share=0.5,
    bus_share=0.3,
    train_share=0.22,
    sunny_share=0.75,
    yellow_lines=True,
    hood=False,
    plate=LABEL["license plate"],
)
CAMERA = Look(
    name="camera",
    focal_widths=(0.95, 1.1),
    camera_height=(1.2, 1.4),
    road_half=(3.2, 5.2),
    sidewalk=(1.8, 3.5),
    floors=(3, 6),
    garden_share=0.35,
    gap_share=0.12,
    tree_share=0.38,
    palm_share=0.0,
    parked_share=0.6,
    crossing_share=0.3,
    people=(1, 9),
    bicycles=(0, 4),
    motorcycles=(0, 1),
    truck_share=0.3,
    bus_share=0.3,
    train_share=0.22,
    sunny_share=0.3,
    yellow_lines=False,
    hood=True,
    plate=LABEL["car"],
)
LOOKS = {look.name: look for look in (GAME, CAMERA)}


@dataclass(frozen=True)
class Side:
    """One side of the road: its sign (-1 left, 1 right) and where kerb, verge, sidewalk and garden end, in metres from the road's middle."""

    sign: int
    kerb: float
    verge: float
    walk: float
    front: float
    green: bool

    @property
    def edges(self) -> list[float]:
        return [self.sign * edge for edge in (self.kerb, self.verge, self.walk, self.front)]


@dataclass(frozen=True)
class Town:
    """What all objects of one street share: the look, the two sides, the crossing (from, to; metres ahead) and the middle of the rails, if any."""

    look: Look
    left: Side
    right: Side
    crossing: tuple[float, float] | None
    rails: float | None
    leaf_hue: float
    sunny: bool

    def beside_crossing(self, start: float, stop: float | None = None) -> bool:
        """Whether something that reaches from ``start`` to ``stop`` metres ahead leaves the crossing free."""
        stop = start if stop is None else stop
        return self.crossing is None or stop < self.crossing[0] or start > self.crossing[1]

    def leaf(self, rng: np.random.Generator) -> np.ndarray:
        """A leaf colour of this season: from dark green to straw and, now and then, autumn."""
        brightness = rng.uniform(0.22, 0.6) if self.look is GAME else rng.uniform(0.16, 0.42)
        return hsv(self.leaf_hue + rng.uniform(-0.05, 0.05), rng.uniform(0.3, 0.75), brightness)


@dataclass(frozen=True)
class Thing:
    """Something to paint: its layer, how far away it is (metres), how, and the (right, forward) outlines it darkens on the ground: (N, 2) each."""

    layer: int
    forward: float
    draw: Callable[[], None]
    shadows: tuple[np.ndarray, ...] = ()


def street(rng: np.random.Generator, look: Look, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw one street.

    Args: rng, the only source of chance; look, one of LOOKS; size (height, width) in pixels, of any ratio.
    Returns: image (H, W, 3) uint8 RGB and label_ids (H, W) uint8 labelIds. Raises ValueError for a size under MIN_SIZE.
    """
    check_size(size)
    height, width = (_SUPERSAMPLING * side for side in size)
    town = _plan(rng, look)
    camera = _camera(rng, town, height, width)
    haze = hsv(rng.uniform(0.5, 0.65) if look is CAMERA or not town.sunny else rng.uniform(0.05, 0.6), rng.uniform(0.0, 0.2), rng.uniform(0.6, 0.95))
    canvas = Canvas(rng, (height, width), haze, sun=rng.choice([-1.0, 1.0]) * (rng.uniform(0.6, 1) if town.sunny else 0.25))
    things = [*_backdrop(canvas, camera, town), *_houses(canvas, camera, town), *_greenery(canvas, camera, town), *_boundaries(canvas, camera, town)]
    things += [*_furniture(canvas, camera, town), *_traffic(canvas, camera, town), *_people(canvas, camera, town)]
    _draw_sky(canvas, camera, town)
    _draw_ground(canvas, camera, town)
    _draw_shadows(canvas, camera, things)
    thickness = rng.uniform(0.15, 0.7)
    for thing in sorted(things, key=lambda thing: (thing.layer, -thing.forward)):
        canvas.haze = thickness * (1 - math.exp(-thing.forward / 90))
        thing.draw()
    if look.hood:
        _draw_hood(canvas)
    image = cv2.resize(canvas.image, size[::-1], interpolation=cv2.INTER_AREA)
    return _develop(rng, look, image), np.ascontiguousarray(canvas.labels[::_SUPERSAMPLING, ::_SUPERSAMPLING])


def check_size(size: tuple[int, int]):
    """Raises ValueError where a street of this (height, width) would be too small to see anything in."""
    if size[0] < MIN_SIZE[0] or size[1] < MIN_SIZE[1]:
        raise ValueError(
            f"A street of {size[0]}x{size[1]} pixels (height x width) is too small to draw: poles and people would vanish. "
            f"Expected at least {MIN_SIZE[0]}x{MIN_SIZE[1]}; ask for a larger size, 128x256 say."
        )


def _plan(rng: np.random.Generator, look: Look) -> Town:
    kerb = rng.uniform(*look.road_half)
    crossing = rng.uniform(14, 45) if rng.random() < look.crossing_share else None
    rails = -kerb * rng.uniform(0.25, 0.45) if rng.random() < look.train_share else None
    return Town(
        look,
        _side(rng, look, -1, kerb),
        _side(rng, look, 1, kerb),
        crossing if crossing is None else (crossing, crossing + rng.uniform(7, 12)),
        rails,
        leaf_hue=rng.choice([0.27, 0.24, 0.2, 0.11]),
        sunny=rng.random() < look.sunny_share,
    )


def _side(rng: np.random.Generator, look: Look, sign: int, kerb: float) -> Side:
    verge = kerb + (rng.uniform(1, 3) if rng.random() < look.garden_share / 2 else 0)
    walk = verge + rng.uniform(*look.sidewalk)
    garden = rng.random() < look.garden_share
    return Side(sign, kerb, verge, walk, walk + (rng.uniform(3, 9) if garden else 0.0), green=rng.random() < 0.8)


def _camera(rng: np.random.Generator, town: Town, height: int, width: int) -> Camera:
    look, kerb = town.look, town.right.kerb
    right = rng.uniform(0.15, 0.5) * kerb
    if not look.hood and rng.random() < 0.2:
        right = kerb + rng.uniform(-1, 1.2)  # players also walk
    return Camera(
        focal=rng.uniform(*look.focal_widths) * width,
        centre=width * rng.normal(0.5, 0.04 if look.hood else 0.1),
        horizon=height * (rng.uniform(0.4, 0.47) if look.hood else rng.uniform(0.36, 0.54)),
        height=rng.uniform(*look.camera_height),
        right=right,
        bend=rng.normal(0, 0.0012),
    )


# The stage: sky, ground, shadows, the hood.


def _draw_sky(canvas: Canvas, camera: Camera, town: Town):
    """A gradient with clouds, torn in sunshine and closed under an overcast sky."""
    rng, (height, width) = canvas.rng, canvas.labels.shape
    rows = min(height, math.ceil(camera.horizon) + 2)
    if town.sunny:
        zenith = hsv(rng.uniform(0.53, 0.63), rng.uniform(0.25, 0.75), rng.uniform(0.55, 0.95))
    else:
        zenith = hsv(rng.uniform(0.5, 0.65), rng.uniform(0, 0.12), rng.uniform(0.5, 0.9))
    rise = (np.arange(rows, dtype=np.float32) / rows)[:, None, None] ** 1.5  # (h, 1, 1)
    sky = zenith * (1 - rise) + canvas.haze_colour * rise
    clouds = fractal_noise(rng, (rows, width), (height, height / 3, height / 8, height / 20))  # (h, W)
    cover = np.clip((clouds + rng.uniform(-0.7, 0.5)) * 1.6, 0, 0.9)[..., None] * (1 if town.sunny else 0.6)
    sky = sky * (1 - cover) + hsv(rng.uniform(0.02, 0.6), 0.05, rng.uniform(0.6, 1)) * (0.9 + 0.12 * clouds[..., None]) * cover
    canvas.image[:rows] = np.clip(sky, 0, 255)
    canvas.labels[:rows] = LABEL["sky"]


def _draw_ground(canvas: Canvas, camera: Camera, town: Town):
    """Road, verges, sidewalks and gardens, coloured pixel by pixel from where the pixel lies on the ground."""
    rng, (height, width) = canvas.rng, canvas.labels.shape
    top = max(0, math.floor(camera.horizon) + 1)
    down = np.arange(top, height, dtype=np.float32)[:, None]
    right, forward = camera.ground(np.arange(width, dtype=np.float32)[None], down)  # (h, W), (h, 1)
    right = right.astype(np.float32)
    edges = np.array([*town.left.edges[::-1], *town.right.edges], np.float32)
    zone = np.searchsorted(edges, right)  # 0-8: beyond, garden, sidewalk, verge, road, verge, sidewalk, garden, beyond
    if town.crossing:
        zone = np.where((forward > town.crossing[0]) & (forward < town.crossing[1]), 4, zone)
    surfaces = _surfaces(rng, town)
    names = [surfaces[i][0] for i in range(9)]
    colours = np.array([colour for _, colour, _ in surfaces], np.float32)
    grain = np.array([grain for _, _, grain in surfaces], np.float32)[zone]

    metre = height / 20  # noise pixels per metre
    span = np.array(canvas.noise.shape[::-1]) - 2.0
    shift = rng.uniform(0, 1000, 2)
    across, along = np.mod(right * metre + shift[0], span[0]), np.broadcast_to(np.mod(forward * metre + shift[1], span[1]), right.shape)
    lying = cv2.remap(canvas.noise, across.astype(np.float32), along.astype(np.float32), cv2.INTER_LINEAR)  # (h, W): noise that lies on the ground
    near = np.exp(-forward / 30).astype(np.float32)
    shade = 1 + grain * (0.4 + 0.6 * near) * (0.6 * lying + 0.4 * canvas.texture(*right.shape))
    paving = np.isin(zone, [i for i, name in enumerate(names) if name == "sidewalk"])
    tile = rng.uniform(0.5, 1.6)
    joints = (np.mod(right, tile) < 0.06) | (np.mod(forward, tile) < 0.08)
    shade -= 0.25 * near * (paving & joints)
    shade *= 0.92 + 0.16 * (1 - near)
    picture = colours[zone] * shade[..., None]
    kerbs = (np.abs(right - edges[3]) < 0.14) | (np.abs(right - edges[4]) < 0.14)
    picture[kerbs & (zone != 4)] *= 1.18

    labels = np.array([LABEL[name] for name in names], np.uint8)[zone]
    paint, strength = _markings(rng, town, right, forward, (zone == 4) & (np.abs(right) < town.right.kerb))
    worn = (strength * np.clip(0.95 + 0.4 * lying, 0, 1))[..., None]
    picture = picture * (1 - worn) + paint * worn
    if town.rails is not None:
        bed = np.abs(right - town.rails) < 1.35
        labels[bed & (zone == 4)] = LABEL["rail track"]
        picture[np.abs(np.abs(right - town.rails) - 0.72) < 0.07] *= 0.45
        picture[bed] *= 0.93
    haze = (0.35 * (1 - np.exp(-forward / 90)))[..., None]
    canvas.image[top:] = np.clip(picture * (1 - haze) + canvas.haze_colour * haze, 0, 255)
    canvas.labels[top:] = labels


def _surfaces(rng: np.random.Generator, town: Town) -> list[tuple[str, np.ndarray, float]]:
    """(class name, colour, grain) of the nine zones from left to right."""
    game = town.look is GAME
    asphalt = hsv(rng.choice([0.08, 0.6, 0.9]), rng.uniform(0, 0.12), rng.uniform(0.38, 0.68) if game else rng.uniform(0.28, 0.55))
    slabs = hsv(rng.choice([0.08, 0.1, 0.02, 0.6]), rng.uniform(0, 0.22), rng.uniform(0.45, 0.8) if game else rng.uniform(0.3, 0.65))

    def earth():
        return hsv(rng.choice([0.25, 0.2, 0.13, 0.08]), rng.uniform(0.25, 0.65), rng.uniform(0.28, 0.6))

    def outer(side: Side):
        green = [("terrain", earth(), 0.5), ("sidewalk", slabs, 0.22), ("terrain", earth(), 0.5)]
        return green if side.green else [("terrain", earth(), 0.5), ("sidewalk", slabs, 0.22), ("sidewalk", slabs * rng.uniform(0.8, 1.1), 0.3)]

    verge_l, walk_l, garden_l = outer(town.left)
    verge_r, walk_r, garden_r = outer(town.right)
    road = ("road", asphalt, rng.uniform(0.12, 0.3) * (0.8 if game else 1.2))
    return [garden_l, garden_l, walk_l, verge_l, road, verge_r, walk_r, garden_r, garden_r]


def _markings(rng: np.random.Generator, town: Town, right: np.ndarray, forward: np.ndarray, road: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Paint on the road: its colour (h, W, 3) and strength (h, W) in [0, 1]: middle line, lane lines, edge lines, a zebra before the crossing."""
    kerb, white = town.right.kerb, np.float32(hsv(0.12, 0.06, rng.uniform(0.65, 0.95)))
    paint = np.broadcast_to(white, (*right.shape, 3))
    dashes = np.mod(forward + rng.uniform(0, 6), rng.uniform(5, 9)) < 3
    middle = np.abs(right) < 0.08
    if town.look.yellow_lines:
        middle = np.abs(np.abs(right) - 0.16) < 0.07
        paint = np.where(middle[..., None], np.float32(hsv(0.12, 0.7, rng.uniform(0.6, 0.9))), paint)
    elif rng.random() < 0.7:
        middle = middle & dashes
    lines = middle | (np.abs(np.abs(right) - kerb / 2) < 0.07) & dashes & (kerb > 4.5)
    if rng.random() < 0.6:
        lines |= np.abs(np.abs(right) - (kerb - 0.35 if town.look.yellow_lines else kerb - 2.2)) < 0.06
    if town.crossing:
        stop = town.crossing[0] - 4.5
        lines &= forward < stop - 1
        lines |= (forward > stop) & (forward < stop + 3) & (np.mod(right, 1.1) < 0.55)
    return paint, (lines & road) * np.float32(rng.uniform(0.6, 0.95))


def _draw_shadows(canvas: Canvas, camera: Camera, things: list[Thing]):
    """Darken the ground under and beside the things: once, softly, however many shadows overlap."""
    shadow = np.zeros(canvas.labels.shape, np.uint8)
    cast = 30 + int(110 * max(0.0, abs(canvas.sun) - 0.2))
    for thing in things:
        for i, outline in enumerate(thing.shadows):
            points = camera.project(np.column_stack([outline[:, 0], np.zeros(len(outline)), outline[:, 1]]))
            cv2.fillConvexPoly(shadow, cv2.convexHull(np.clip(points, -2e4, 2e4).astype(np.int32)), 150 if i == 0 else cast)
    top = min(max(0, math.floor(camera.horizon) + 1), len(shadow))
    soft = cv2.GaussianBlur(shadow[top:], (0, 0), max(0.5, len(shadow) / (200 if abs(canvas.sun) > 0.5 else 70)))
    canvas.image[top:] = canvas.image[top:] * (1 - soft[..., None] / np.float32(255))


def _shadows(canvas: Canvas, right: float, forward: float, half_width: float, half_length: float, height: float) -> tuple[np.ndarray, np.ndarray]:
    """The outlines under a thing and, away from the sun, beside it."""
    foot = np.array([(a, b) for a in (-half_width, half_width) for b in (-half_length, half_length)]) + (right, forward)
    return foot, np.vstack([foot, foot - (canvas.sun * height * 0.5, -0.25 * height)])


def _draw_hood(canvas: Canvas):
    """The hood of the own car along the lower edge, with the sky's reflection on it."""
    rng, (height, width) = canvas.rng, canvas.labels.shape
    across = np.linspace(0, 1, 24)
    rise = height * (0.93 - rng.uniform(0.02, 0.04) * (1 - (2 * across - 1) ** 2) + rng.uniform(-0.01, 0.02))
    outline = np.vstack([np.stack([across * width, rise], axis=1), [(width, height + 9), (0, height + 9)]])
    canvas.haze = 0.0
    colour = hsv(0.6, 0.15, rng.uniform(0.08, 0.25))
    canvas.polygon(outline, colour, LABEL["ego vehicle"], 0.5)
    canvas.line(outline[:24], colour * 2.2 + 20, max(1, height // 128))


# The rows along the road: backdrop, houses, boundaries, trees, furniture. Each returns things to paint.


def _backdrop(canvas: Canvas, camera: Camera, town: Town) -> list[Thing]:
    """What closes the view where the rows end: hills, a skyline, a row of trees, or a house across the end of the street."""
    rng, width = canvas.rng, canvas.labels.shape[1]
    kind = rng.choice(["hills", "skyline", "trees"])
    label = LABEL["building" if kind == "skyline" else "vegetation"]
    steps = {"hills": 40, "skyline": 60, "trees": 120}[kind]
    heights = np.abs(fractal_noise(rng, (1, steps), (steps / 3, steps / 9, 2)))[0] + rng.uniform(0.1, 0.4)
    across = np.repeat(np.linspace(-0.05, 1.05, steps), 2) * width
    heights = np.roll(np.repeat(heights, 2), 1) if kind == "skyline" else np.repeat(heights, 2)
    rise = camera.horizon - heights * camera.focal * rng.uniform(0.05, 0.12)
    outline = np.vstack([np.stack([across, rise], axis=1), [(1.05 * width, camera.horizon + 3), (-0.05 * width, camera.horizon + 3)]])
    colour = hsv(rng.random(), 0.15, rng.uniform(0.3, 0.7)) if kind == "skyline" else town.leaf(rng)
    things = [Thing(_BACKDROP, 200.0, partial(canvas.polygon, outline, colour, label, 0.25))]
    if rng.random() < 0.5:
        things.append(Thing(_BACKDROP, _FAR_M, partial(_draw_house_across, canvas, camera, town)))
    return things


def _draw_house_across(canvas: Canvas, camera: Camera, town: Town):
    tall, middle, half = canvas.rng.uniform(8, 22), canvas.rng.uniform(-15, 15), canvas.rng.uniform(15, 40)
    place = Place(camera, middle - camera.bend * _FAR_M**2 * canvas.rng.uniform(0, 1), _FAR_M)
    corners = place([(-half, tall, 0), (half, tall, 0), (half, 0, 0), (-half, 0, 0)])
    canvas.warp(_facade(canvas.rng, town.look, 2 * half, tall, 6.0), corners, LABEL["building"])


def _houses(canvas: Canvas, camera: Camera, town: Town) -> list[Thing]:
    rng, things = canvas.rng, []
    for side in (town.left, town.right):
        start = rng.uniform(-6, 2)
        green = rng.random() < town.look.gap_share / 2  # a park instead of houses
        while start < _FAR_M:
            stop = start + rng.uniform(8, 24)
            if not green and stop > 3 and town.beside_crossing(start, stop) and rng.random() > town.look.gap_share:
                near = max(start, NEAR_M + 0.2)
                tall = 3.3 * rng.integers(*town.look.floors, endpoint=True) + rng.uniform(0.6, 1.5)
                if town.look is GAME and rng.random() < 0.7:
                    tall = min(tall, 3.3 * rng.integers(1, 3, endpoint=True) + 1)
                shadow = _shadows(canvas, side.sign * (side.front + 6), (near + stop) / 2, 6, (stop - near) / 2, tall)
                things.append(Thing(_HOUSES, near, partial(_draw_house, canvas, camera, town, side, near, stop, tall), shadow))
            start = stop + (rng.uniform(2, 8) if rng.random() < town.look.gap_share else 0)
    return things


def _draw_house(canvas: Canvas, camera: Camera, town: Town, side: Side, near: float, far: float, tall: float):
    """The gable that faces the camera, the roof, and the front along the street."""
    rng, label, x = canvas.rng, LABEL["building"], side.sign * side.front
    deep = side.sign * rng.uniform(8, 14)
    sharpness = float(np.clip(0.8 * camera.focal / math.sqrt(near * far), 3, 26))
    front = _facade(rng, town.look, far - near, tall, sharpness)
    light = 0.8 - 0.28 * side.sign * canvas.sun
    wall = front.reshape(-1, 3).mean(axis=0)

    def corners(points):
        return camera.project(np.array(points))

    canvas.polygon(corners([(x, tall, near), (x + deep, tall, near), (x + deep, 0, near), (x, 0, near)]), wall * 0.85, label, 0.08)
    if tall < 20 and rng.random() < (0.75 if town.look is CAMERA else 0.45):
        ridge, roof = tall + rng.uniform(1.5, 3.5), hsv(rng.choice([0.02, 0.05, 0.6]), rng.uniform(0.1, 0.6), rng.uniform(0.2, 0.55))
        canvas.polygon(corners([(x, tall, near), (x + deep / 2, ridge, near), (x + deep, tall, near)]), wall * 0.85, label, 0.08)
        canvas.polygon(corners([(x, tall, near), (x, tall, far), (x + deep / 2, ridge, far), (x + deep / 2, ridge, near)]), roof * light, label, 0.25)
    first, last = (near, far) if side.sign < 0 else (far, near)
    quad = corners([(x, tall, first), (x, tall, last), (x, 0, last), (x, 0, first)])
    canvas.warp(np.clip(front * light, 0, 255).astype(np.uint8), quad, label)


def _facade(rng: np.random.Generator, look: Look, wide: float, tall: float, sharpness: float) -> np.ndarray:
    """A flat front of ``wide`` x ``tall`` metres at ``sharpness`` pixels per metre, (h, w, 3) uint8: plaster or brick, windows, a ground floor."""
    height, width = max(4, round(tall * sharpness)), max(4, round(wide * sharpness))
    saturation = rng.uniform(0.05, 0.5) if look is GAME else rng.uniform(0, 0.35)
    base = hsv(rng.choice([0.08, 0.1, 0.04, 0.6, rng.random()]), saturation, rng.uniform(0.35, 0.95))
    noise = fractal_noise(rng, (height, width), (height / 2, 3 * sharpness, sharpness / 3, 2))
    dirt = np.linspace(0.04, -0.08, height, dtype=np.float32)[:, None]
    front = np.float32(base) * (1 + rng.uniform(0.03, 0.12) * noise + dirt)[..., None]
    if rng.random() < 0.3:
        front[:: max(3, round(sharpness / 3))] *= 0.85  # courses of brick
    front = np.clip(front, 0, 255).astype(np.uint8)
    floors, columns = max(1, int(tall / 3.2)), max(1, int(wide / rng.uniform(1.8, 3.6)))
    share = (rng.uniform(0.35, 0.8), rng.uniform(0.4, 0.65))
    frame, glass = base * rng.choice([0.55, 1.25]), hsv(rng.uniform(0.5, 0.65), rng.uniform(0.05, 0.45), rng.uniform(0.15, 0.55))
    shop = floors > 1 and rng.random() < 0.5
    for floor in range(floors):
        top = height - (floor + 1) * height / (tall / 3.2)
        for column in range(columns):
            middle = (column + 0.5) * width / columns
            half = share[0] * width / columns / 2
            _window(
                front, (middle - half, top + 0.25 * 3.2 * sharpness * (1.1 - share[1])), (2 * half, share[1] * 3.2 * sharpness), frame, glass, rng
            )
        if rng.random() < 0.3:
            cv2.line(front, (0, round(top)), (width, round(top)), tuple((base * 0.7).tolist()), max(1, round(sharpness / 4)))
    if shop:
        _ground_floor(front, sharpness, rng)
    cv2.rectangle(front, (0, 0), (width, round(0.4 * sharpness)), tuple((base * rng.uniform(0.6, 1.2)).tolist()), -1)
    return front


def _window(
    front: np.ndarray, corner: tuple[float, float], extent: tuple[float, float], frame: np.ndarray, glass: np.ndarray, rng: np.random.Generator
):
    left, top, right, bottom = (round(value) for value in (*corner, corner[0] + extent[0], corner[1] + extent[1]))
    cv2.rectangle(front, (left - 1, top - 1), (right + 1, bottom + 1), tuple(frame.tolist()), -1)
    pane = glass * rng.uniform(0.6, 1.3) if rng.random() < 0.85 else hsv(0.12, rng.uniform(0, 0.4), rng.uniform(0.6, 0.9))
    cv2.rectangle(front, (left, top), (right, bottom), tuple(pane.tolist()), -1)
    if right - left > 5:
        middle = (left + right) // 2
        cv2.line(front, (middle, top), (middle, bottom), tuple(frame.tolist()), 1)


def _ground_floor(front: np.ndarray, sharpness: float, rng: np.random.Generator):
    """Shop windows, a sign board above them and awnings."""
    height, width = front.shape[:2]
    top, left = round(height - 3.1 * sharpness), 0
    while left < width:
        right = left + round(rng.uniform(3, 7) * sharpness) + 1
        body, pane = hsv(rng.random(), rng.uniform(0, 0.6), rng.uniform(0.2, 0.8)), hsv(0.6, rng.uniform(0, 0.4), rng.uniform(0.08, 0.4))
        cv2.rectangle(front, (left, top), (right, height), tuple(body.tolist()), -1)
        inset = round(0.3 * sharpness)
        cv2.rectangle(front, (left + inset, top + round(0.8 * sharpness)), (right - inset, round(height - 0.4 * sharpness)), tuple(pane.tolist()), -1)
        board = hsv(rng.random(), rng.uniform(0.2, 0.9), rng.uniform(0.3, 0.95))
        cv2.rectangle(front, (left + inset, top), (right - inset, top + round(rng.uniform(0.5, 1.1) * sharpness)), tuple(board.tolist()), -1)
        left = right


def _boundaries(canvas: Canvas, camera: Camera, town: Town) -> list[Thing]:
    """Walls, fences and hedges between sidewalk and garden, or a railing at the kerb."""
    rng, things = canvas.rng, []
    for side in (town.left, town.right):
        at_kerb = side.front == side.walk
        if at_kerb and rng.random() > 0.25:
            continue
        x, start = side.sign * (side.kerb + 0.3 if at_kerb else side.walk), rng.uniform(-3, 3)
        kind = "fence" if at_kerb else rng.choice(["wall", "fence", "hedge", "none"], p=[0.36, 0.34, 0.1, 0.2])
        if kind == "none":
            continue
        tall, painter = rng.uniform(0.9, 1.3) if at_kerb else rng.uniform(0.9, 2.6), _painter(rng, kind, town)
        while start < 90:
            stop = start + rng.uniform(5, 9)
            near = max(start, NEAR_M + 0.2)
            if stop > near + 1 and town.beside_crossing(start, stop):
                shadow = _shadows(canvas, x, (near + stop) / 2, 0.1, (stop - near) / 2, tall)
                things.append(Thing(_BOUNDARIES, near, partial(_draw_boundary, canvas, camera, painter, kind, (x, near, stop), tall), shadow))
            start = stop + (rng.uniform(2, 6) if rng.random() < 0.15 else 0)
    return things


def _painter(rng: np.random.Generator, kind: str, town: Town) -> Callable[[float, float, float], tuple[np.ndarray, np.ndarray | None]]:
    """A function of (wide, tall, sharpness) that draws a flat piece of this boundary: picture (h, w, 3) uint8 and, if it has holes, alpha (h, w)."""
    colour = town.leaf(rng) if kind == "hedge" else hsv(rng.choice([0.08, 0.05, 0.6, rng.random()]), rng.uniform(0, 0.45), rng.uniform(0.2, 0.9))
    pitch, solid, mesh = rng.uniform(0.13, 0.3), rng.random() < 0.35, rng.random() < 0.3
    contrast = {"hedge": 0.5, "wall": 0.22, "fence": 0.12}[kind]

    def paint(wide: float, tall: float, sharpness: float):
        height, width = max(4, round(tall * sharpness)), max(4, round(wide * sharpness))
        noise = fractal_noise(rng, (height, width), (height, height / 3, max(2, sharpness / 5), 2))
        picture = np.float32(colour) * (1 + contrast * noise)[..., None]
        if kind == "wall":
            picture[:: max(3, round(0.4 * sharpness))] *= 0.8
            picture[: max(1, round(0.14 * sharpness))] *= 1.25
        alpha = None
        if kind == "fence":
            bars = np.mod(np.arange(width) / sharpness, pitch) < max(0.35 * pitch, 1 / sharpness)
            rails = np.mod(np.arange(height) / sharpness + 0.02, pitch if mesh else tall * 0.8) < 0.08
            open_work = bars[None] | rails[:, None]
            picture[~open_work] *= 0.55
            alpha = None if solid else open_work.astype(np.uint8) * 255
        return np.clip(picture, 0, 255).astype(np.uint8), alpha

    return paint


def _draw_boundary(canvas: Canvas, camera: Camera, painter, kind: str, line: tuple[float, float, float], tall: float):
    x, near, far = line
    sharpness = float(np.clip(0.8 * camera.focal / math.sqrt(near * far), 4, 30))
    picture, alpha = painter(far - near, tall, sharpness)
    first, last = (near, far) if x < camera.right else (far, near)
    quad = camera.project(np.array([(x, tall, first), (x, tall, last), (x, 0, last), (x, 0, first)]))
    light = 0.85 - 0.25 * np.sign(x) * canvas.sun
    canvas.warp(np.clip(picture * light, 0, 255).astype(np.uint8), quad, LABEL["vegetation" if kind == "hedge" else kind], alpha)


def _greenery(canvas: Canvas, camera: Camera, town: Town) -> list[Thing]:
    """Trees along the kerb and, thinner, in the gardens."""
    rng, things = canvas.rng, []
    for side in (town.left, town.right):
        rows = [(side.kerb + 0.8, town.look.tree_share, _OBJECTS)]
        if side.front > side.walk:
            rows.append(((side.walk + side.front) / 2, 0.5, _HOUSES))
        for distance, share, layer in rows:
            ahead, palms = rng.uniform(6, 14), rng.random() < town.look.palm_share
            lined = rng.random() < 0.75
            while lined and ahead < 100:
                if town.beside_crossing(ahead - 2, ahead + 2) and rng.random() < share:
                    tall = rng.uniform(5, 10) if palms or layer == _OBJECTS else rng.uniform(2, 8)
                    place = Place(camera, side.sign * (distance + rng.uniform(-0.2, 0.4)), ahead)
                    shadow = _shadows(canvas, place.right, ahead, 0.2, 0.2, 0)[0], _shadows(canvas, place.right, ahead, 1.5, 1.5, tall * 0.6)[1]
                    things.append(Thing(layer, ahead, partial(palm if palms else tree, canvas, rng, place, tall, town.leaf(rng)), shadow))
                ahead += rng.uniform(6, 11)
    return things


def _furniture(canvas: Canvas, camera: Camera, town: Town) -> list[Thing]:
    """Lamp posts, masts, signs, signals, bollards and bins along the kerb."""
    rng, things = canvas.rng, []

    def add(painter, side: Side, ahead: float, *more):
        place = Place(camera, side.sign * (side.kerb + rng.uniform(0.3, 0.7)), ahead, rng.normal(0, 0.25) if painter in (sign, clutter) else 0.0)
        if abs(place.right - camera.right) > 0.8 or ahead > 12:
            things.append(Thing(_OBJECTS, ahead, partial(painter, canvas, rng, place, *more), _shadows(canvas, place.right, ahead, 0.1, 0.1, 4)))

    for side in (town.left, town.right):
        post = (utility_pole,) if town.look is GAME and rng.random() < 0.5 else (lamp_post, side.sign)
        for ahead in np.arange(rng.uniform(5, 18), 90, rng.uniform(14, 24)):
            add(post[0], side, float(ahead), *post[1:])
        for _ in range(rng.integers(0, 5)):
            add(sign, side, rng.uniform(6, 45))
        for _ in range(rng.integers(0, 3)):
            add(clutter, side, rng.uniform(7, 30))
        if not town.look.hood or rng.random() < 0.3:
            continue
        start = rng.uniform(6, 20)
        for i in range(rng.integers(0, 7)):
            add(bollard, side, start + 1.6 * i)
    if town.crossing or rng.random() < 0.35:
        ahead = town.crossing[0] - 1 if town.crossing else rng.uniform(10, 30)
        for side in (town.left, town.right):
            add(traffic_light, side, ahead, side.sign, bool(rng.random() < (0.6 if town.look is GAME else 0.25)))
    return things


# Traffic and people.


def _traffic(canvas: Canvas, camera: Camera, town: Town) -> list[Thing]:
    """Vehicles in their lanes, parked ones, a train on its rails, crossing traffic; none stands inside another."""
    rng, look, kerb = canvas.rng, town.look, town.right.kerb
    things, taken = [], []

    def add(right: float, ahead: float, yaw: float, bodies: tuple[Body, ...]) -> bool:
        half_length, half_width = sum(body.length for body in bodies) / 2, bodies[0].width / 2
        if abs(math.sin(yaw)) > 0.7:
            half_length, half_width = half_width, half_length
        clash = any(abs(right - r) < half_width + w + 0.2 and abs(ahead - a) < half_length + b + 0.6 for r, a, w, b in taken)
        if clash or ahead - half_length < (5.5 if abs(right - camera.right) > 1.6 + half_width else 9):
            return False
        taken.append((right, ahead, half_width, half_length))
        shadow = _shadows(canvas, right, ahead, half_width, half_length, bodies[0].height)
        things.append(Thing(_OBJECTS, ahead - half_length, partial(_draw_vehicle, canvas, rng, camera, (right, ahead, yaw), bodies), shadow))
        return True

    def one_car():
        return (replace(car(rng), plate=look.plate),)

    if town.rails is not None:
        along, heading = rng.uniform(14, 50), rng.choice([0.0, math.pi])
        waggon = coach(rng, LABEL["train"])
        for i in range(rng.integers(1, 4)):
            add(town.rails, along + i * (waggon.length + 0.7), heading, (waggon,))
    lanes = (
        [(0.5 * kerb, 0.0), (-0.5 * kerb, math.pi)]
        if kerb < 5.5
        else [(0.25 * kerb, 0.0), (0.68 * kerb, 0.0), (-0.25 * kerb, math.pi), (-0.68 * kerb, math.pi)]
    )
    for share, make in ((look.bus_share, lambda: (coach(rng, LABEL["bus"]),)), (look.truck_share, lambda: truck(rng))):
        if rng.random() < share:
            right, yaw = lanes[rng.integers(len(lanes))]
            _until_placed(lambda right=right, yaw=yaw, make=make: add(right, rng.uniform(11, 38), yaw, make()))
    for right, yaw in lanes:
        for ahead in np.cumsum(rng.uniform(8, 40, 5)):
            if rng.random() < 0.6:
                add(right + rng.normal(0, 0.2), float(ahead), yaw + rng.normal(0, 0.03), one_car())
    for sign_of_side in (-1, 1):
        parked = rng.random() < look.parked_share + 0.2
        for ahead in np.arange(rng.uniform(6, 12), 70, rng.uniform(5.3, 6.5)):
            if parked and town.beside_crossing(ahead - 4, ahead + 4) and rng.random() < look.parked_share + 0.2:
                away = (rng.random() < 0.85) == (sign_of_side > 0)
                add(sign_of_side * (kerb - 1.05), float(ahead), 0.0 if away else math.pi, one_car())
    if town.crossing and rng.random() < 0.6:
        for _ in range(rng.integers(1, 4)):
            add(rng.uniform(-14, 14), rng.uniform(town.crossing[0] + 2, town.crossing[1] - 2), rng.choice([-0.5, 0.5]) * math.pi, one_car())
    return things + _two_wheelers(canvas, camera, town, taken)


def _until_placed(attempt: Callable[[], bool], tries: int = 6):
    """A rare class should not be missing only because the first place tried was taken."""
    for _ in range(tries):
        if attempt():
            return


def _draw_vehicle(canvas: Canvas, rng: np.random.Generator, camera: Camera, where: tuple[float, float, float], bodies: tuple[Body, ...]):
    right, ahead, yaw = where
    middle = max(body.profile[:, 0].max() for body in bodies) / 2
    place = Place(camera, right, ahead, yaw)
    for body in bodies if math.cos(yaw) < 0 else bodies[::-1]:
        centred = body.profile - (middle, 0)
        moved = {"profile": centred, "windows": tuple(pane - (middle, 0) for pane in body.windows), "wheels": tuple(w - middle for w in body.wheels)}
        draw_body(canvas, rng, place, replace(body, **moved))


def _two_wheelers(canvas: Canvas, camera: Camera, town: Town, taken: list[tuple[float, float, float, float]]) -> list[Thing]:
    """Bicycles and motorcycles: ridden in the lanes, or standing at the kerb."""
    rng, look, things = canvas.rng, town.look, []
    kinds = [bicycle] * rng.integers(*look.bicycles, endpoint=True) + [motorcycle] * rng.integers(*look.motorcycles, endpoint=True)
    for painter in kinds:
        ridden = rng.random() < 0.65
        for _ in range(8):
            side = rng.choice([-1, 1])
            right = side * (town.right.kerb + (rng.uniform(-2.8, -0.6) if ridden else rng.uniform(0.4, 0.9)))
            ahead = rng.uniform(7, 26)
            clear = all(abs(right - r) > w + 0.5 or abs(ahead - a) > b + 1.2 for r, a, w, b in taken)
            if clear and abs(right - camera.right) > 1:
                taken.append((right, ahead, 0.3, 0.9))
                yaw = (0.0 if side > 0 else math.pi) + rng.normal(0, 0.35) if ridden else rng.uniform(0, 2 * math.pi)
                draw = partial(_draw_two_wheeler, canvas, rng, Place(camera, right, ahead, yaw), painter, ridden)
                things.append(Thing(_OBJECTS, ahead, draw, _shadows(canvas, right, ahead, 0.2, 0.7, 1.5)))
                break
    return things


def _draw_two_wheeler(canvas: Canvas, rng: np.random.Generator, place: Place, painter, ridden: bool):
    painter(canvas, rng, place)
    if ridden:
        rider(canvas, rng, place, seat=0.95 if painter is bicycle else 0.85)


def _people(canvas: Canvas, camera: Camera, town: Town) -> list[Thing]:
    """People on the sidewalks, often in twos and threes, and some who cross the road."""
    rng, things = canvas.rng, []
    for _ in range(rng.integers(*town.look.people, endpoint=True)):
        side = town.left if rng.random() < 0.5 else town.right
        crossing = rng.random() < 0.2
        right = rng.uniform(-side.kerb, side.kerb) if crossing else side.sign * rng.uniform(side.verge + 0.5, max(side.walk - 0.4, side.verge + 0.6))
        ahead = rng.uniform(12, 35) if crossing else rng.uniform(6, 32)
        for _ in range(rng.choice([1, 1, 2, 3])):
            yaw = rng.choice([-0.5, 0.5]) * math.pi if crossing else rng.choice([0, math.pi]) + rng.normal(0, 0.5)
            place = Place(camera, right, ahead, yaw)
            if abs(right - camera.right) > 0.9 or ahead > 10:
                things.append(Thing(_OBJECTS, ahead, partial(person, canvas, rng, place), _shadows(canvas, right, ahead, 0.2, 0.15, 1.7)))
            right, ahead = right + rng.uniform(-0.8, 0.8), ahead + rng.uniform(-0.8, 0.8)
    return things


# The film: what the two looks make of the same light.


def _develop(rng: np.random.Generator, look: Look, image: np.ndarray) -> np.ndarray:
    """Colour, contrast, sharpness and noise of the look. image (H, W, 3) uint8 -> the same."""
    height, width = image.shape[:2]
    picture = image.astype(np.float32) / 255
    grey = picture.mean(axis=2, keepdims=True)
    if look is GAME:
        picture = grey + rng.uniform(1.1, 1.5) * (picture - grey)
        picture = np.clip(picture * np.float32([1.07, 1.0, 0.9 + rng.uniform(-0.06, 0.08)]), 0, 1)
        picture = picture * rng.uniform(0.85, 1.05) + 0.35 * (picture * picture * (3 - 2 * picture) - picture)
        picture += 0.5 * (picture - cv2.GaussianBlur(picture, (0, 0), 1.0))
        picture += rng.standard_normal((height, width, 1), np.float32) * 0.006
    else:
        picture = grey + rng.uniform(0.5, 0.75) * (picture - grey)
        cast = np.float32([0.9, 1.0, 0.92]) * np.float32(1 + rng.normal(0, 0.02, 3))
        picture = np.clip(picture * cast * rng.uniform(1.05, 1.5), 0, 1) ** rng.uniform(1.0, 1.25)  # the sky may burn out
        picture = 0.04 + rng.uniform(0.7, 0.9) * picture
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.45, 0.75) * max(1.0, height / 256))
        across, down = np.linspace(-1, 1, width, dtype=np.float32)[None], np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        picture *= (1 - 0.16 * (across**2 + down**2))[..., None]
        noise = rng.standard_normal((height, width, 3), np.float32)
        picture += rng.uniform(0.008, 0.022) * (0.6 * noise + 0.7 * noise[..., :1])
    return np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)
