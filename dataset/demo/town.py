"""Plan of a generated street: the two looks, and a layout drawn from the ranges of a look."""

from dataclasses import dataclass

import numpy as np

from dataset.demo.camera import Camera
from dataset.demo.canvas import LABEL, hsv


@dataclass(frozen=True)
class Look:
    """Appearance and layout of one domain.

    Pairs are ranges of random values, in meters unless the name says otherwise. ``focal_widths``:
    focal length in image widths. The *_share fields are probabilities.
    """

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
"""The looks by name."""


@dataclass(frozen=True)
class Side:
    """One side of the road.

    ``sign``: -1 left, 1 right. ``curb``, ``verge``, ``walk`` and ``front``: distance from the
    middle of the road, in meters, at which road, verge, sidewalk and garden end.
    """

    sign: int
    curb: float
    verge: float
    walk: float
    front: float
    green: bool

    @property
    def has_garden(self) -> bool:
        return self.front > self.walk

    @property
    def edges(self) -> list[float]:
        """Right coordinates, in meters, at which road, verge, sidewalk and garden end.

        Negative on the left side.
        """
        return [self.sign * edge for edge in (self.curb, self.verge, self.walk, self.front)]


@dataclass(frozen=True)
class Town:
    """Properties that all objects of one street share.

    ``crossing``: (from, to) in meters ahead. ``rails``: right coordinate of their middle. None: the
    street has none.
    """

    look: Look
    left: Side
    right: Side
    crossing: tuple[float, float] | None
    rails: float | None
    leaf_hue: float
    sunny: bool

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.left, self.right

    def beside_crossing(self, start: float, stop: float) -> bool:
        """Whether an object from ``start`` to ``stop`` meters ahead leaves the crossing free."""
        return self.crossing is None or stop < self.crossing[0] or start > self.crossing[1]

    def leaf(self, rng: np.random.Generator) -> np.ndarray:
        """A random leaf color of the season: from dark green to straw, sometimes autumn."""
        brightness = rng.uniform(0.22, 0.6) if self.look is GAME else rng.uniform(0.16, 0.42)
        return hsv(self.leaf_hue + rng.uniform(-0.05, 0.05), rng.uniform(0.3, 0.75), brightness)


def plan_town(rng: np.random.Generator, look: Look) -> Town:
    """Draws a random layout of one street."""
    curb = rng.uniform(*look.road_half)
    crossing_start = rng.uniform(14, 45) if rng.random() < look.crossing_share else None
    rails = -curb * rng.uniform(0.25, 0.45) if rng.random() < look.train_share else None
    left, right, crossing = _side(rng, look, -1, curb), _side(rng, look, 1, curb), None
    if crossing_start is not None:
        crossing = (crossing_start, crossing_start + rng.uniform(7, 12))
    leaf_hue, sunny = rng.choice([0.27, 0.24, 0.2, 0.11]), rng.random() < look.sunny_share
    return Town(look, left, right, crossing, rails, leaf_hue, sunny)


def _side(rng: np.random.Generator, look: Look, sign: int, curb: float) -> Side:
    verge = curb + (rng.uniform(1, 3) if rng.random() < look.garden_share / 2 else 0)
    walk = verge + rng.uniform(*look.sidewalk)
    front = walk + (rng.uniform(3, 9) if rng.random() < look.garden_share else 0.0)
    return Side(sign, curb, verge, walk, front, green=rng.random() < 0.8)


def plan_camera(rng: np.random.Generator, town: Town, size: tuple[int, int]) -> Camera:
    """Draws a random camera position: in the right lane or, for GAME, sometimes on the sidewalk.

    ``size``: (height, width) in pixels.
    """
    look, curb, (height, width) = town.look, town.right.curb, size
    right = rng.uniform(0.15, 0.5) * curb
    if not look.hood and rng.random() < 0.2:
        right = curb + rng.uniform(-1, 1.2)  # players also walk
    return Camera(
        focal=rng.uniform(*look.focal_widths) * width,
        center=width * rng.normal(0.5, 0.04 if look.hood else 0.1),
        horizon=height * (rng.uniform(0.4, 0.47) if look.hood else rng.uniform(0.36, 0.54)),
        height=rng.uniform(*look.camera_height),
        right=right,
        bend=rng.normal(0, 0.0012),
    )
