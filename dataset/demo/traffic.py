"""Where the vehicles of a generated street stand and drive."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from dataset.demo.camera import Camera, Place
from dataset.demo.canvas import Canvas, Layer, Thing
from dataset.demo.town import Town
from dataset.demo.vehicles import Body, car, coach, draw_vehicle, truck


class Footprint(NamedTuple):
    """Ground that an object covers, in meters: its middle and half its size."""

    right: float
    forward: float
    half_width: float
    half_length: float

    def touches(self, other: "Footprint", beside: float, ahead: float) -> bool:
        """Whether the gap between two footprints is too small.

        Less than ``beside`` meters across the road and less than ``ahead`` meters along it.
        """
        is_beside = abs(self.right - other.right) < self.half_width + other.half_width + beside
        is_ahead = abs(self.forward - other.forward) < self.half_length + other.half_length + ahead
        return is_beside and is_ahead


Put = Callable[[float, float, float, tuple[Body, ...]], bool]
"""Puts bodies, from rear to front, at (right, ahead, yaw); returns whether they fit there."""


def traffic(canvas: Canvas, camera: Camera, town: Town) -> tuple[list[Thing], list[Footprint]]:
    """Vehicles on rails, in lanes, at the curbs and on the crossing, without overlaps.

    Returns them and their footprints.
    """
    rng, curb = canvas.rng, town.right.curb
    things, taken = [], []

    def put(right: float, ahead: float, yaw: float, bodies: tuple[Body, ...]) -> bool:
        half_length, half_width = sum(body.length for body in bodies) / 2, bodies[0].width / 2
        if abs(math.sin(yaw)) > 0.7:
            half_length, half_width = half_width, half_length
        footprint = Footprint(right, ahead, half_width, half_length)
        beside_camera = abs(right - camera.right) > 1.6 + half_width
        if ahead - half_length < (5.5 if beside_camera else 9) or any(
            footprint.touches(other, 0.2, 0.6) for other in taken
        ):
            return False
        taken.append(footprint)
        shadows = canvas.shadows(right, ahead, half_width, half_length, bodies[0].height)
        draw = partial(draw_vehicle, canvas, Place(camera, right, ahead, yaw), bodies)
        things.append(Thing(Layer.OBJECTS, ahead - half_length, draw, shadows))
        return True

    if curb < 5.5:
        lanes = [(0.5 * curb, 0.0), (-0.5 * curb, math.pi)]
    else:
        lanes = [(0.25 * curb, 0.0), (0.68 * curb, 0.0)]
        lanes += [(-0.25 * curb, math.pi), (-0.68 * curb, math.pi)]
    _put_train(rng, town, put)
    _put_large(rng, town, lanes, put)
    _put_driving(rng, town, lanes, put)
    _put_parked(rng, town, put)
    _put_crossing(rng, town, put)
    return things, taken


def _put_train(rng: np.random.Generator, town: Town, put: Put) -> None:
    if town.rails is not None:
        ahead, yaw = rng.uniform(14, 50), rng.choice([0.0, math.pi])
        wagon = coach(rng, "train")
        for i in range(rng.integers(1, 4)):
            put(town.rails, ahead + i * (wagon.length + 0.7), yaw, (wagon,))


def _put_large(
    rng: np.random.Generator, town: Town, lanes: list[tuple[float, float]], put: Put
) -> None:
    """Puts at most one bus and one truck, with six attempts each.

    The attempts keep a rare class from being absent only because a position was taken.
    """
    for share, make in (
        (town.look.bus_share, lambda: (coach(rng, "bus"),)),
        (town.look.truck_share, lambda: truck(rng)),
    ):
        if rng.random() < share:
            right, yaw = lanes[rng.integers(len(lanes))]
            any(put(right, rng.uniform(11, 38), yaw, make()) for _ in range(6))


def _put_driving(
    rng: np.random.Generator, town: Town, lanes: list[tuple[float, float]], put: Put
) -> None:
    for right, yaw in lanes:
        for ahead in np.cumsum(rng.uniform(8, 40, 5)).tolist():
            if rng.random() < 0.6:
                across, turned = right + rng.normal(0, 0.2), yaw + rng.normal(0, 0.03)
                put(across, ahead, turned, (car(rng, town.look.plate),))


def _put_parked(rng: np.random.Generator, town: Town, put: Put) -> None:
    share = town.look.parked_share + 0.2
    for side in town.sides:
        parked = rng.random() < share
        for ahead in np.arange(rng.uniform(6, 12), 70, rng.uniform(5.3, 6.5)).tolist():
            if parked and town.beside_crossing(ahead - 4, ahead + 4) and rng.random() < share:
                away = (rng.random() < 0.85) == (side.sign > 0)
                right, yaw = side.sign * (side.curb - 1.05), 0.0 if away else math.pi
                put(right, ahead, yaw, (car(rng, town.look.plate),))


def _put_crossing(rng: np.random.Generator, town: Town, put: Put) -> None:
    if town.crossing and rng.random() < 0.6:
        start, stop = town.crossing
        for _ in range(rng.integers(1, 4)):
            right, ahead = rng.uniform(-14, 14), rng.uniform(start + 2, stop - 2)
            yaw = rng.choice([-0.5, 0.5]) * math.pi
            put(right, ahead, yaw, (car(rng, town.look.plate),))
