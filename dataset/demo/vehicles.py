"""Vehicles of a generated street: cars, trucks, buses and trains.

Each is a side profile, extruded across its width.
"""

import math
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from dataset.demo.camera import Place
from dataset.demo.canvas import LABEL, Canvas, hsv, unit_circle


@dataclass(frozen=True)
class Body:
    """Shape of a vehicle, in meters.

    ``profile`` (N, 2): (along, up) from the foot of the rear over the roof to the foot of the
    front. ``glass``: indices of its edges that are windows. ``windows`` (M, 4, 2): windows on both
    sides. ``wheels``: their positions along it. ``trim``: color of stripe and bumpers. ``plate``:
    labelId of the license plate, if any.
    """

    label: int
    profile: np.ndarray
    width: float
    color: np.ndarray
    glass: tuple[int, ...] = ()
    windows: np.ndarray = field(default_factory=lambda: np.empty((0, 4, 2)))
    wheels: tuple[float, ...] = ()
    wheel_radius: float = 0.32
    lights_up: float = 0.72
    trim: np.ndarray = field(default_factory=lambda: np.array([40.0, 40, 42]))
    plate: int | None = None

    @property
    def length(self) -> float:
        return float(np.ptp(self.profile[:, 0]))

    @property
    def height(self) -> float:
        return float(self.profile[:, 1].max())

    def moved(self, along: float) -> "Body":
        """The same body, ``along`` meters farther ahead."""
        wheels = tuple(wheel + along for wheel in self.wheels)
        profile, windows = self.profile + (along, 0), self.windows + (along, 0)
        return replace(self, profile=profile, windows=windows, wheels=wheels)


def paintwork(rng: np.random.Generator) -> np.ndarray:
    """A random paint color: half of all are white, silver, grey or black."""
    if rng.random() < 0.5:
        hue, value = rng.random(), rng.choice([0.12, 0.25, 0.5, 0.7, 0.9])
        return hsv(hue, 0.06, value + rng.uniform(-0.06, 0.06))
    return hsv(rng.random(), rng.uniform(0.3, 0.9), rng.uniform(0.2, 0.85))


def car(rng: np.random.Generator, plate: int) -> Body:
    """A sedan, a station wagon, an off-roader or a van."""
    length, tall = rng.uniform(3.7, 4.8), rng.uniform(1.38, 1.75)
    belt, tail, nose = tall * 0.66, rng.choice([0.12, 0.35, 0.75]), rng.choice([0.45, 1.0, 1.15])
    profile = [(0, 0.3), (0, belt - 0.08), (tail, belt), (tail + 0.45, tall - 0.03)]
    profile += [(0.6 * length - 0.3, tall), (length - nose, belt), (length - 0.1, belt - 0.2)]
    profile += [(length, 0.55), (length, 0.28)]
    # Feet and heads of the three posts between which the windows lie.
    foot = [tail + 0.35, 0.38 * length, length - nose - 0.2]
    head = [tail + 0.65, 0.38 * length, 0.6 * length - 0.3]
    panes = [
        [
            (foot[i] + 0.04, belt),
            (head[i] + 0.04, tall - 0.1),
            (head[i + 1] - 0.04, tall - 0.1),
            (foot[i + 1] - 0.04, belt),
        ]
        for i in (0, 1)
    ]
    width, color, wheels = rng.uniform(1.7, 1.95), paintwork(rng), (0.78, length - 0.85)
    return Body(
        LABEL["car"],
        np.array(profile),
        width,
        color,
        glass=(2, 4),
        windows=np.array(panes),
        wheels=wheels,
        plate=plate,
    )


def truck(rng: np.random.Generator) -> tuple[Body, Body]:
    """Two bodies, from the rear: a box or an open bed, and the cab."""
    length = rng.uniform(4.2, 7.5)
    tall = rng.choice([1.6, 2.9, 3.3, 3.7]) + rng.uniform(-0.1, 0.1)
    width = rng.uniform(2.2, 2.5)
    box = np.array([(0, 0.75), (0, tall), (length, tall), (length, 0.75)])
    cab_tall = rng.uniform(2.4, 2.9)
    cab = [(0, 0.5), (0, cab_tall), (1.2, cab_tall), (1.75, 1.6), (1.9, 1.3), (1.9, 0.45)]
    cab = np.array(cab) + (length + 0.15, 0)
    pane = np.array([(0.6, 1.5), (0.6, 2.2), (1.2, 2.2), (1.55, 1.5)]) + (length + 0.15, 0)
    common = {"label": LABEL["truck"], "width": width, "wheel_radius": 0.48, "lights_up": 0.9}
    box_color = hsv(rng.random(), rng.choice([0.04, 0.5]), rng.uniform(0.35, 0.95))
    return (
        Body(
            profile=box,
            color=box_color,
            wheels=(0.9, 1.95),
            trim=hsv(rng.random(), 0.7, 0.6),
            **common,
        ),
        Body(
            profile=cab,
            color=paintwork(rng),
            glass=(2,),
            windows=pane[None],
            wheels=(length + 1.3,),
            **common,
        ),
    )


def coach(rng: np.random.Generator, name: str) -> Body:
    """A "bus", or one wagon of a "train" or tram: a long body with a row of windows."""
    rail = name == "train"
    lengths, heights = ((12, 16), (3.4, 3.8)) if rail else ((9, 12), (2.8, 3.3))
    length, tall = rng.uniform(*lengths), rng.uniform(*heights)
    profile = [(0, 0.35), (0, 1.3), (0.25 * rail, tall - 0.1), (0.3, tall)]
    profile += [(length - 0.4, tall), (length - 0.1, tall - 0.5), (length, 1.2), (length, 0.35)]
    count, low = int(length / 1.6), 1.35 if rail else 1.25
    edges = np.linspace(0.4, length - 0.7, count + 1)
    panes = np.array(
        [
            [(a, low), (a, tall - 0.55), (b - 0.2, tall - 0.55), (b - 0.2, low)]
            for a, b in pairwise(edges)
        ]
    )
    for door in rng.choice(count, 2, replace=False):
        panes[door, [0, 3]] -= (0, 0.85)  # a window down to the floor
    color = hsv(rng.random(), rng.choice([0.1, 0.75]), rng.uniform(0.4, 0.95))
    trim = hsv(rng.random(), 0.7, rng.uniform(0.3, 0.8))
    wheels = () if rail else (2.2, length - 2.4)
    return Body(
        LABEL[name],
        np.array(profile),
        2.5,
        color,
        (1, 5),
        panes,
        wheels,
        wheel_radius=0.48,
        lights_up=0.8,
        trim=trim,
    )


def _turns(polygons: np.ndarray) -> list[float]:
    """Signed double area of each of the polygons (M, N, 2).

    Positive when its corners run clockwise on the screen: the face is seen from outside.
    """
    following = np.concatenate([polygons[:, 1:], polygons[:, :1]], axis=1)
    cross = polygons[..., 0] * following[..., 1] - polygons[..., 1] * following[..., 0]  # (M, N)
    return cross.sum(axis=1).tolist()


def draw_body(canvas: Canvas, place: Place, body: Body) -> None:
    """Draws the visible faces of a vehicle, the farthest first, with windows, wheels and lights."""
    rng = canvas.rng
    glass = hsv(0.58 + rng.uniform(-0.1, 0.1), rng.uniform(0.05, 0.3), rng.uniform(0.1, 0.4))
    half = body.width / 2
    sides = _on_side(place, body.profile, np.array([[-half], [half]]))  # (2, N, 2)
    left, right = sides
    faces = np.stack([left[:-1], left[1:], right[1:], right[:-1]], axis=1)  # (N - 1, 4, 2)
    depths = place.forward + np.cos(place.yaw) * body.profile[:, 0]
    turns = _turns(faces)
    for i in np.argsort(-(depths[:-1] + depths[1:]), kind="stable").tolist():
        if turns[i] > 0:
            face = faces[i]
            edge = body.profile[i + 1] - body.profile[i]
            # 0: upright, 1: flat. The light comes from above.
            slope = abs(edge[0]) / max(0.01, np.linalg.norm(edge))
            canvas.polygon(face, body.color * (0.68 + 0.5 * slope), body.label, 0.06)
            if i in body.glass:
                middle = face.mean(0)
                canvas.polygon(middle + (face - middle) * 0.84, glass * (1 + 0.8 * slope))
    for outward, face, turn in zip((-1, 1), sides, _turns(sides), strict=True):
        if turn * outward > 0:
            light = 0.75 + 0.3 * canvas.sun * outward * math.cos(place.yaw)
            canvas.polygon(face, body.color * light, body.label, 0.06)
            _draw_side(canvas, place, body, outward * half, glass * light)
    _draw_end(canvas, place, body)


def _on_side(place: Place, points: np.ndarray, across: float | np.ndarray) -> np.ndarray:
    """Pixels (..., 2) of points (..., 2), given as (along, up) in meters, on a side of a vehicle.

    ``across``: distance of the side from the middle of the vehicle, in meters.
    """
    return place.at(across, points[..., 1], points[..., 0])


def _draw_side(canvas: Canvas, place: Place, body: Body, across: float, glass: np.ndarray) -> None:
    """Draws stripe, windows and wheels of one side."""
    low, start, stop = body.profile[0, 1], body.profile[:, 0].min(), body.profile[:, 0].max()
    stripe = np.array([(start, low), (start, low + 0.18), (stop, low + 0.18), (stop, low)])
    canvas.polygon(_on_side(place, stripe, across), body.trim)
    for pane in _on_side(place, body.windows, across):
        canvas.polygon(pane, glass)
    shares = np.array([1, 0.58, 0.2])[:, None, None]  # of tire, rim and hub
    rings = unit_circle(14) * body.wheel_radius * shares + (0, body.wheel_radius)  # (3, 14, 2)
    for along in body.wheels:
        tire, rim, hub = _on_side(place, rings + (along, 0), across)
        canvas.polygon(tire, np.array([22, 22, 24]), body.label)
        canvas.polygon(rim, np.array([120, 120, 124]))
        canvas.polygon(hub, np.array([60, 60, 60]))


def _draw_end(canvas: Canvas, place: Place, body: Body) -> None:
    """Draws bumper, lights, license plate (``body.plate``) and wheels of the visible end."""
    rng = canvas.rng
    if abs(math.cos(place.yaw)) < 0.35:
        return
    rear_seen = math.cos(place.yaw) > 0
    along = body.profile[0 if rear_seen else -1, 0] + (-0.01 if rear_seen else 0.01)
    low, half = body.profile[0, 1], body.width / 2

    def boxes(*edges: tuple[float, float, float, float]) -> np.ndarray:
        """(M, 4, 2) pixels of boxes, each given as (from, to; across), bottom and top in meters."""
        return place(
            [
                [(a, bottom, along), (a, top, along), (b, top, along), (b, bottom, along)]
                for a, b, bottom, top in edges
            ]
        )

    wheels = [(side * (half - 0.28), side * (half - 0.05), 0, low + 0.05) for side in (-1, 1)]
    lights = [
        (side * (half - 0.36), side * (half - 0.04), body.lights_up - 0.1, body.lights_up + 0.1)
        for side in (-1, 1)
    ]
    bumper, plate = (-half, half, low, low + 0.2), (-0.26, 0.26, low + 0.22, low + 0.36)
    *wheels, bumper, left_light, right_light, plate = boxes(*wheels, bumper, *lights, plate)
    for wheel in wheels:
        canvas.polygon(wheel, np.array([20.0, 20, 22]), body.label)
    canvas.polygon(bumper, body.trim * 0.9)
    light = (
        hsv(0, 0.85, rng.uniform(0.45, 1)) if rear_seen else hsv(0.12, 0.12, rng.uniform(0.7, 1))
    )
    canvas.polygon(left_light, light)
    canvas.polygon(right_light, light)
    if body.plate is not None:
        canvas.polygon(plate, hsv(0.12, rng.uniform(0, 0.5), 0.85), body.plate)


def draw_vehicle(canvas: Canvas, place: Place, bodies: tuple[Body, ...]) -> None:
    """Draws the bodies of a vehicle, given from rear to front, around its middle."""
    middle = max(body.profile[:, 0].max() for body in bodies) / 2
    for body in bodies if math.cos(place.yaw) < 0 else bodies[::-1]:
        draw_body(canvas, place, body.moved(-middle))
