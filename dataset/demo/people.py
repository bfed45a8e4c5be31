"""People of a generated street: on sidewalks, on the road, on bicycles and motorcycles."""

import math
from functools import partial

import numpy as np

from dataset.demo.camera import Camera, Place
from dataset.demo.canvas import LABEL, Canvas, Layer, Thing, hsv, unit_circle
from dataset.demo.town import Town
from dataset.demo.traffic import Footprint
from dataset.demo.vehicles import paintwork


def people(canvas: Canvas, camera: Camera, town: Town) -> list[Thing]:
    """People on the sidewalks, often in groups of two or three, and some who cross the road."""
    rng, things = canvas.rng, []
    for _ in range(rng.integers(*town.look.people, endpoint=True)):
        side = town.left if rng.random() < 0.5 else town.right
        crossing = rng.random() < 0.2
        if crossing:
            right, ahead = rng.uniform(-side.curb, side.curb), rng.uniform(12, 35)
        else:
            inner, outer = side.verge + 0.5, max(side.walk - 0.4, side.verge + 0.6)
            right, ahead = side.sign * rng.uniform(inner, outer), rng.uniform(6, 32)
        for _ in range(rng.choice([1, 1, 2, 3])):
            if crossing:
                yaw = rng.choice([-0.5, 0.5]) * math.pi
            else:
                yaw = rng.choice([0, math.pi]) + rng.normal(0, 0.5)
            if abs(right - camera.right) > 0.9 or ahead > 10:
                draw = partial(_draw_person, canvas, Place(camera, right, ahead, yaw))
                shadows = canvas.shadows(right, ahead, 0.2, 0.15, 1.7)
                things.append(Thing(Layer.OBJECTS, ahead, draw, shadows))
            right, ahead = right + rng.uniform(-0.8, 0.8), ahead + rng.uniform(-0.8, 0.8)
    return things


def two_wheelers(canvas: Canvas, camera: Camera, town: Town, taken: list[Footprint]) -> list[Thing]:
    """Bicycles and motorcycles: ridden in the lanes, or parked at the curb.

    Their footprints are added to ``taken``.
    """
    rng, look, things = canvas.rng, town.look, []
    kinds = [_draw_bicycle] * rng.integers(*look.bicycles, endpoint=True)
    kinds += [_draw_motorcycle] * rng.integers(*look.motorcycles, endpoint=True)
    for draw_machine in kinds:
        ridden = rng.random() < 0.65
        for _ in range(8):
            side = town.sides[rng.choice([0, 1])]
            beside_curb = rng.uniform(-2.8, -0.6) if ridden else rng.uniform(0.4, 0.9)
            right = side.sign * (side.curb + beside_curb)
            footprint = Footprint(right, rng.uniform(7, 26), 0.3, 0.9)
            is_free = not any(footprint.touches(other, 0.2, 0.3) for other in taken)
            if abs(right - camera.right) > 1 and is_free:
                taken.append(footprint)
                heading = 0.0 if side.sign > 0 else math.pi
                yaw = heading + rng.normal(0, 0.35) if ridden else rng.uniform(0, 2 * math.pi)
                place = Place(camera, right, footprint.forward, yaw)
                shadows = canvas.shadows(right, footprint.forward, 0.2, 0.7, 1.5)
                draw = partial(_draw_two_wheeler, canvas, place, draw_machine, ridden)
                things.append(Thing(Layer.OBJECTS, footprint.forward, draw, shadows))
                break
    return things


def _draw_two_wheeler(canvas: Canvas, place: Place, draw_machine, ridden: bool) -> None:
    draw_machine(canvas, place)
    if ridden:
        _draw_rider(canvas, place, lift=0.95 - 0.85 if draw_machine is _draw_bicycle else 0.0)


def _draw_person(canvas: Canvas, place: Place) -> None:
    """Draws a man, woman or child, standing or walking."""
    rng = canvas.rng
    tall = rng.uniform(1.5, 1.9) if rng.random() < 0.85 else rng.uniform(1.0, 1.4)
    stride, sway = rng.uniform(0, 0.35), rng.uniform(-0.1, 0.25)
    pose = {
        "hip": (0.14, 0.9, 0),
        "shoulder": (0.2, 1.42, 0.02),
        "head": (0, 1.63, 0.04),
        "knee": [(-0.11, 0.48, stride / 2 + 0.03), (0.11, 0.48, -stride / 2 + 0.05)],
        "foot": [(-0.11, 0.03, stride), (0.11, 0.03, -stride)],
        "elbow": [(-0.27, 1.15, -sway), (0.27, 1.15, sway)],
        "hand": [(-0.26, 0.88, -sway), (0.26, 0.88, sway + 0.1)],
    }
    _draw_figure(canvas, place, pose, tall / 1.75, LABEL["person"])


def _draw_rider(canvas: Canvas, place: Place, lift: float) -> None:
    """Draws a sitting person who holds a handlebar.

    ``lift``: meters by which the rider sits higher than on a motorcycle.
    """
    pose = {
        "hip": (0.14, 0.92 + lift, -0.2),
        "shoulder": (0.2, 1.4 + lift, 0.08),
        "head": (0, 1.62 + lift, 0.16),
        "knee": [(-0.14, 0.72 + lift, 0.2), (0.14, 0.62 + lift, 0.18)],
        "foot": [(-0.12, 0.36, 0.05), (0.12, 0.2, 0.0)],
        "elbow": [(-0.28, 1.2 + lift, 0.25), (0.28, 1.2 + lift, 0.25)],
        "hand": [(-0.26, 1.08, 0.48), (0.26, 1.08, 0.48)],
    }
    _draw_figure(canvas, place, pose, 1.0, LABEL["rider"])


def _draw_figure(canvas: Canvas, place: Place, pose: dict, scale: float, label: int) -> None:
    """Draws legs, torso, arms and head of a skeleton, far limbs first.

    ``pose``: joints as (across, up, along) in meters of a person 1.75 m tall. hip and shoulder are
    given for one side and mirrored, head is one point, the others are [left, right].
    """
    rng = canvas.rng
    skin = hsv(0.06, rng.uniform(0.25, 0.6), rng.uniform(0.25, 0.9))
    top = hsv(rng.random(), rng.uniform(0, 0.85), rng.uniform(0.1, 0.95))
    legs = hsv(rng.choice([0.6, 0.1, rng.random()]), rng.uniform(0, 0.6), rng.uniform(0.08, 0.6))
    sleeve = top * 0.85 if rng.random() < 0.6 else skin
    pairs = [
        [(-across, up, along), (across, up, along)]
        for across, up, along in (pose["hip"], pose["shoulder"])
    ]
    pairs += [pose[joint] for joint in ("knee", "foot", "elbow", "hand")]
    pairs.append([(across, up, along + 0.16) for across, up, along in pose["foot"]])
    (_, waist, waist_along), (_, shoulder, shoulder_along) = pose["hip"], pose["shoulder"]
    spine = [(0, shoulder - 0.1, shoulder_along), (0, waist, waist_along)]
    joints = place(np.array([*pairs, spine], np.float64) * scale)
    hips, shoulders, knees, heels, elbows, hands, toes, spine = joints  # each (2, 2)

    def limb(color: np.ndarray, width: float, *joints: np.ndarray) -> None:
        canvas.line(np.array(joints), color, place.pixels(width * scale), label)

    for i in (0, 1):
        limb(legs * (0.8 + 0.2 * i), 0.16, hips[i], knees[i], heels[i])
        limb(np.array([30.0, 28, 26]), 0.1, heels[i], toes[i])
    limb(sleeve * 0.85, 0.1, shoulders[0], elbows[0], hands[0])
    limb(top, 0.26, *spine)
    canvas.polygon(np.array([*shoulders, *hips[::-1]]), top, label, 0.2)
    limb(sleeve, 0.1, shoulders[1], elbows[1], hands[1])
    head, radius = place(np.array(pose["head"]) * scale), 0.13 * scale * place.pixels(1.0)
    hair = hsv(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.05, 0.7))
    canvas.disc(head - (0, 0.25 * radius), radius * 1.08, hair, label)
    canvas.disc(head + (0, 0.2 * radius), radius * 0.9, skin, label)


def _draw_bicycle(canvas: Canvas, place: Place) -> None:
    """Draws two rings and a frame. The labels fill the rings, as annotators draw them."""
    rng, label = canvas.rng, LABEL["bicycle"]
    color = hsv(rng.random(), rng.uniform(0, 0.9), rng.uniform(0.1, 0.9))
    tire, tube = hsv(0.1, 0.1, rng.uniform(0.05, 0.25)), place.pixels(0.05)
    for along in (-0.52, 0.52):
        wheel = _wheel(place, along, 0.34)
        canvas.mark(wheel, label)
        canvas.line(_closed(wheel), tire, place.pixels(0.06), label)
    rear, front, crank = (0, 0.34, -0.52), (0, 0.34, 0.52), (0, 0.3, -0.05)
    saddle, head, bar = (0, 0.88, -0.2), (0, 0.85, 0.36), (0, 1.02, 0.4)
    for joints in ([rear, crank, head, saddle, crank], [rear, saddle], [front, head, bar]):
        canvas.line(place(joints), color, tube, label)
    canvas.line(place([(-0.28, 1.04, 0.38), (0.28, 1.04, 0.38)]), tire, tube, label)
    canvas.line(place([(0, 0.92, -0.34), (0, 0.92, -0.1)]), tire, place.pixels(0.09), label)


def _draw_motorcycle(canvas: Canvas, place: Place) -> None:
    """Draws two wide wheels, an engine, a tank and a seat."""
    rng, label = canvas.rng, LABEL["motorcycle"]
    color, dark = paintwork(rng), hsv(0.6, 0.1, rng.uniform(0.08, 0.25))
    for along in (-0.7, 0.7):
        wheel = _wheel(place, along, 0.32)
        canvas.polygon(wheel, dark * 1.6, label)
        canvas.line(_closed(wheel), dark, place.pixels(0.13), label)
    engine = [(0, 0.3, -0.4), (0, 0.7, -0.4), (0, 0.72, 0.4), (0, 0.3, 0.4)]
    canvas.polygon(place(engine), dark * 2.2, label, 0.3)
    seat, tank = (
        [(0, 0.62, -0.9), (0, 0.88, -0.85), (0, 0.8, 0)],
        [(0, 1.02, 0.15), (0, 0.95, 0.55)],
    )
    canvas.polygon(place([*seat, *tank, (0, 0.6, 0.4)]), color, label, 0.15)
    for joints, paint, width in (
        ([(0, 0.4, 0.72), (0, 1.05, 0.5)], dark, 0.1),
        ([(-0.36, 1.08, 0.45), (0.36, 1.08, 0.45)], dark, 0.07),
        ([(0, 0.85, -0.8), (0, 0.84, 0)], dark, 0.14),
        ([(0, 0.4, -0.7), (0, 0.95, 0.3)], color * 0.9, 0.3),
    ):
        canvas.line(place(joints), paint, place.pixels(width), label)
    if math.cos(place.yaw) < 0:
        end, light = (0, 0.85, 0.75), hsv(0.1, 0.2, 0.95)
    else:
        end, light = (0, 0.8, -0.92), hsv(0, 0.8, 0.7)
    canvas.disc(place([end])[0], place.pixels(0.1), light, label)


def _wheel(place: Place, along: float, radius: float) -> np.ndarray:
    """(16, 2) pixels of a wheel that touches the ground."""
    circle = radius * unit_circle(16)
    return place(np.stack([np.zeros(16), radius + circle[:, 1], along + circle[:, 0]], axis=1))


def _closed(outline: np.ndarray) -> np.ndarray:
    """The outline (N, 2) with its first point again at the end."""
    return np.vstack([outline, outline[:1]])
