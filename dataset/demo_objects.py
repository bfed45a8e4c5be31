"""What stands on a generated street: a camera, a canvas, and the vehicles, people, trees and street furniture drawn on it.

World coordinates are metres: right (0 = middle of the road), up (0 = the ground), forward (0 = the camera). Everything is painted on a
``Canvas`` that holds picture and labels, so that the two agree by construction. Colours are RGB triples, 0-255. Label arguments are labelIds.
Every colour is drawn anew for every instance: no class can be told by its colour alone.
"""

import colorsys
import math
from dataclasses import dataclass, field
from itertools import pairwise

import cv2
import numpy as np

from dataset.labels import CLASS_NAMES, LABEL_IDS

LABEL = {**dict(zip(CLASS_NAMES, LABEL_IDS, strict=True)), "ego vehicle": 1, "static": 4, "rail track": 10, "license plate": 34}
"""labelId by name: the 19 classes and the ignored labels that the streets use."""

NEAR_M = 1.0
_SUBPIXEL_BITS = 4


def hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """(3,) float RGB, 0-255, of hue (in turns, wraps around), saturation and value (0-1, clipped)."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1))) * 255


def fractal_noise(rng: np.random.Generator, size: tuple[int, int], wavelengths: tuple[float, ...]) -> np.ndarray:
    """(H, W) float32 in [-1, 1]: smooth noise summed over ``wavelengths`` in pixels, each at equal strength."""
    total = np.zeros(size, np.float32)
    for wavelength in wavelengths:
        grid = [max(2, math.ceil(side / wavelength)) for side in size]
        total += cv2.resize(rng.uniform(-1, 1, grid).astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(total * (1.3 / math.sqrt(len(wavelengths))), -1, 1)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera above a road that bends as ``right = bend * forward**2``. focal, centre and horizon are in pixels, the rest in metres."""

    focal: float
    centre: float
    horizon: float
    height: float
    right: float
    bend: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) metres along the road (right, up, forward) -> (N, 2) pixels (across, down). Points behind the near plane are moved onto it."""
        right, up, forward = np.asarray(points, np.float64).T
        forward = np.maximum(forward, NEAR_M)
        across = self.centre + self.focal * ((right - self.right) / forward + self.bend * forward)
        return np.stack([across, self.horizon + self.focal * (self.height - up) / forward], axis=1)  # (N, 2)

    def ground(self, across: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The inverse of ``project`` on the ground, for pixels below the horizon: (right, forward) in metres, of the inputs' broadcast shape."""
        forward = self.focal * self.height / (down - self.horizon)
        return ((across - self.centre) / self.focal - self.bend * forward) * forward + self.right, forward


@dataclass(frozen=True)
class Place:
    """Where an object stands and where it heads: yaw 0 drives away from the camera, pi comes towards it. Called with (N, 3) local metres: pixels."""

    camera: Camera
    right: float
    forward: float
    yaw: float = 0.0

    def __call__(self, points) -> np.ndarray:
        across, up, along = np.asarray(points, np.float64).T
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        world = [self.right + across * cos + along * sin, up, self.forward - across * sin + along * cos]
        return self.camera.project(np.stack(world, axis=1))

    def pixels(self, metres: float) -> int:
        """How many pixels wide a line of this width is here, at least 1."""
        return max(1, round(metres * self.camera.focal / max(self.forward, NEAR_M)))


class Canvas:
    """A picture and its labels, painted together.

    Attributes: image (H, W, 3) uint8 RGB; labels (H, W) uint8 labelIds; noise (1.5 H, 1.5 W) float32 in [-1, 1], from which textures are cut;
    haze, the share (0-1) of ``haze_colour`` mixed into whatever is painted next; sun, in [-1, 1], the light's side (-1 left, 1 right) and strength.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[int, int], haze_colour: np.ndarray, sun: float):
        height, width = size
        self.rng = rng
        self.image = np.zeros((height, width, 3), np.uint8)
        self.labels = np.zeros((height, width), np.uint8)
        self.noise = fractal_noise(rng, (height * 3 // 2, width * 3 // 2), (height / 4, height / 11, height / 32, 3))
        self.haze, self.haze_colour, self.sun = 0.0, haze_colour, sun

    def _mixed(self, colour: np.ndarray) -> np.ndarray:
        return np.asarray(colour) * (1 - self.haze) + self.haze_colour * self.haze

    def colour(self, colour: np.ndarray) -> tuple[int, int, int]:
        """The colour as OpenCV wants it, haze mixed in."""
        return tuple(int(value) for value in np.clip(self._mixed(colour), 0, 255))

    def texture(self, height: int, width: int) -> np.ndarray:
        """(height, width) float32 in [-1, 1], cut from the noise at a random place."""
        top = self.rng.integers(self.noise.shape[0] - height + 1)
        left = self.rng.integers(self.noise.shape[1] - width + 1)
        return self.noise[top : top + height, left : left + width]

    def region(self, points: np.ndarray) -> tuple[slice, slice] | None:
        """The part of the canvas that the points' bounding box covers, as (rows, columns); None if it lies outside."""
        height, width = self.labels.shape
        left, top = np.clip(np.floor(points.min(axis=0)), 0, (width, height)).astype(int).tolist()
        right, bottom = np.clip(np.ceil(points.max(axis=0)) + 1, 0, (width, height)).astype(int).tolist()
        return (slice(top, bottom), slice(left, right)) if right > left and bottom > top else None

    def polygon(self, points: np.ndarray, colour: np.ndarray, label: int | None = None, grain: float = 0.0):
        """Fill a polygon (N, 2) of pixels. ``label`` None leaves the labels as they are; ``grain`` (0-1) is the strength of the noise on it."""
        if grain:
            region = self.region(points)
            if region is None:
                return
            mask = self._mask(points, region)
            flat = np.asarray(colour, np.float32) * (1 + grain * self.texture(*mask.shape))[..., None]
            self.paste(region, flat, mask, label)
            return
        fixed = [_fixed_point(points)]
        cv2.fillPoly(self.image, fixed, self.colour(colour), cv2.LINE_AA, _SUBPIXEL_BITS)
        if label is not None:
            cv2.fillPoly(self.labels, fixed, label, shift=_SUBPIXEL_BITS)

    def line(self, points: np.ndarray, colour: np.ndarray, thickness: int, label: int | None = None):
        """Draw a polyline (N, 2) of pixels."""
        fixed = [_fixed_point(points)]
        cv2.polylines(self.image, fixed, False, self.colour(colour), thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
        if label is not None:
            cv2.polylines(self.labels, fixed, False, label, thickness, cv2.LINE_8, _SUBPIXEL_BITS)

    def disc(self, centre: np.ndarray, radius: float, colour: np.ndarray, label: int | None = None):
        """Fill a circle; centre (2,) and radius in pixels."""
        turns = np.linspace(0, 2 * math.pi, 12, endpoint=False)
        self.polygon(centre + radius * np.stack([np.cos(turns), np.sin(turns)], axis=1), colour, label)

    def warp(self, picture: np.ndarray, corners: np.ndarray, label: int, alpha: np.ndarray | None = None):
        """Paint a flat picture (h, w, 3) in perspective onto ``corners`` (4, 2): top left, top right, bottom right, bottom left.

        Where ``alpha`` (h, w) uint8 is 0 one sees through it, yet the label covers the whole quadrilateral, as the annotators of fences draw it.
        """
        region = self.region(corners)
        if region is None:
            return
        height, width = picture.shape[:2]
        mask = self._mask(corners, region)
        source = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        matrix = cv2.getPerspectiveTransform(source, (corners - (region[1].start, region[0].start)).astype(np.float32))
        flat = cv2.warpPerspective(picture, matrix, mask.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
        self.labels[region][mask] = label
        if alpha is not None:
            mask = mask & (cv2.warpPerspective(alpha, matrix, mask.shape[::-1]) > 127)
        self.paste(region, flat, mask)

    def paste(self, region: tuple[slice, slice], picture: np.ndarray, mask: np.ndarray, label: int | None = None):
        """Put the masked pixels of ``picture`` (h, w, 3), haze mixed in, and ``label`` into a region of the same size."""
        self.image[region][mask] = np.clip(self._mixed(picture[mask]), 0, 255)
        if label is not None:
            self.labels[region][mask] = label

    def _mask(self, points: np.ndarray, region: tuple[slice, slice]) -> np.ndarray:
        rows, columns = region
        mask = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
        cv2.fillPoly(mask, [_fixed_point(points - (columns.start, rows.start))], 1, shift=_SUBPIXEL_BITS)
        return mask.astype(bool)


def _fixed_point(points: np.ndarray) -> np.ndarray:
    """(N, 2) pixels as the integers that OpenCV's ``shift`` expects; clipped, since they must fit its arithmetic."""
    return np.round(np.clip(points, -2e4, 2e4) * 2**_SUBPIXEL_BITS).astype(np.int32)


def _signed_area(polygon: np.ndarray) -> float:
    """Positive where the corners run clockwise on the screen."""
    across, down = polygon.T
    return float(across @ np.roll(down, -1) - down @ np.roll(across, -1))


# Vehicles: a side profile, extruded across its width.


@dataclass(frozen=True)
class Body:
    """A vehicle's shape in metres: profile (N, 2) of (along, up) from the rear's foot over the roof to the front's foot; glass: the edges of it that
    are windows; windows: polygons (M, 2) on both sides; wheels: where they stand along it; ``trim`` the colour of stripe and bumpers."""

    label: int
    profile: np.ndarray
    width: float
    colour: np.ndarray
    glass: tuple[int, ...] = ()
    windows: tuple[np.ndarray, ...] = ()
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


def car_colour(rng: np.random.Generator) -> np.ndarray:
    """White, silver, grey and black are the half of all cars; the other half has any colour."""
    if rng.random() < 0.5:
        return hsv(rng.random(), 0.06, rng.choice([0.12, 0.25, 0.5, 0.7, 0.9]) + rng.uniform(-0.06, 0.06))
    return hsv(rng.random(), rng.uniform(0.3, 0.9), rng.uniform(0.2, 0.85))


def car(rng: np.random.Generator) -> Body:
    """A saloon, an estate, an off-roader or a van."""
    length, tall = rng.uniform(3.7, 4.8), rng.uniform(1.38, 1.75)
    belt, tail, nose = tall * 0.66, rng.choice([0.12, 0.35, 0.75]), rng.choice([0.45, 1.0, 1.15])
    profile = [(0, 0.3), (0, belt - 0.08), (tail, belt), (tail + 0.45, tall - 0.03), (0.6 * length - 0.3, tall)]
    profile += [(length - nose, belt), (length - 0.1, belt - 0.2), (length, 0.55), (length, 0.28)]
    posts = [tail + 0.35, 0.38 * length, length - nose - 0.2]
    roof = [tail + 0.65, 0.38 * length, 0.6 * length - 0.3]
    panes = [
        np.array([(posts[i] + 0.04, belt), (roof[i] + 0.04, tall - 0.1), (roof[i + 1] - 0.04, tall - 0.1), (posts[i + 1] - 0.04, belt)])
        for i in (0, 1)
    ]
    return Body(
        LABEL["car"], np.array(profile), rng.uniform(1.7, 1.95), car_colour(rng), glass=(2, 4), windows=tuple(panes), wheels=(0.78, length - 0.85)
    )


def truck(rng: np.random.Generator) -> tuple[Body, Body]:
    """A lorry as two bodies, box first: a box or an open bed, and the cab in front of it."""
    length, tall, width = rng.uniform(4.2, 7.5), rng.choice([1.6, 2.9, 3.3, 3.7]) + rng.uniform(-0.1, 0.1), rng.uniform(2.2, 2.5)
    box = np.array([(0, 0.75), (0, tall), (length, tall), (length, 0.75)])
    cab_tall = rng.uniform(2.4, 2.9)
    cab = np.array([(0, 0.5), (0, cab_tall), (1.2, cab_tall), (1.75, 1.6), (1.9, 1.3), (1.9, 0.45)]) + (length + 0.15, 0)
    pane = np.array([(0.6, 1.5), (0.6, 2.2), (1.2, 2.2), (1.55, 1.5)]) + (length + 0.15, 0)
    common = {"label": LABEL["truck"], "width": width, "wheel_radius": 0.48, "lights_up": 0.9}
    box_colour = hsv(rng.random(), rng.choice([0.04, 0.5]), rng.uniform(0.35, 0.95))
    return (
        Body(profile=box, colour=box_colour, wheels=(0.9, 1.95), trim=hsv(rng.random(), 0.7, 0.6), **common),
        Body(profile=cab, colour=car_colour(rng), glass=(2,), windows=(pane,), wheels=(length + 1.3,), **common),
    )


def coach(rng: np.random.Generator, label: int) -> Body:
    """A bus, or one waggon of a train or tram: a long body with a row of windows."""
    rail = label == LABEL["train"]
    length, tall = (rng.uniform(12, 16), rng.uniform(3.4, 3.8)) if rail else (rng.uniform(9, 12), rng.uniform(2.8, 3.3))
    profile = [
        (0, 0.35),
        (0, 1.3),
        (0.25 * rail, tall - 0.1),
        (0.3, tall),
        (length - 0.4, tall),
        (length - 0.1, tall - 0.5),
        (length, 1.2),
        (length, 0.35),
    ]
    count, low = int(length / 1.6), 1.35 if rail else 1.25
    edges = np.linspace(0.4, length - 0.7, count + 1)
    panes = [np.array([(a, low), (a, tall - 0.55), (b - 0.2, tall - 0.55), (b - 0.2, low)]) for a, b in pairwise(edges)]
    doors = rng.choice(count, 2, replace=False)
    panes = [pane - [(0, 0.85), (0, 0), (0, 0), (0, 0.85)] if i in doors else pane for i, pane in enumerate(panes)]
    colour = hsv(rng.random(), rng.choice([0.1, 0.75]), rng.uniform(0.4, 0.95))
    wheels = () if rail else (2.2, length - 2.4)
    trim = hsv(rng.random(), 0.7, rng.uniform(0.3, 0.8))
    return Body(label, np.array(profile), 2.5, colour, (1, 5), tuple(panes), wheels, 0.48, 0.8, trim)


def draw_body(canvas: Canvas, rng: np.random.Generator, place: Place, body: Body):
    """Paint the visible faces of a vehicle, the farthest first, with its windows, wheels and lights."""
    glass = hsv(0.58 + rng.uniform(-0.1, 0.1), rng.uniform(0.05, 0.3), rng.uniform(0.1, 0.4))
    half = body.width / 2

    def side(points, across):
        return place(np.column_stack([np.full(len(points), across), points[:, 1], points[:, 0]]))

    left, right = side(body.profile, -half), side(body.profile, half)
    depths = place.forward + np.cos(place.yaw) * body.profile[:, 0]
    edges = sorted(range(len(body.profile) - 1), key=lambda i: -(depths[i] + depths[i + 1]))
    for i in edges:
        face = np.array([left[i], left[i + 1], right[i + 1], right[i]])
        if _signed_area(face) > 0:
            slope = abs(body.profile[i + 1, 0] - body.profile[i, 0]) / max(0.01, np.linalg.norm(body.profile[i + 1] - body.profile[i]))
            canvas.polygon(face, body.colour * (0.68 + 0.5 * slope), body.label, 0.06)
            if i in body.glass:
                canvas.polygon(face.mean(0) + (face - face.mean(0)) * 0.84, glass * (1 + 0.8 * slope))
    for across, face in ((-half, left), (half, right)):
        if _signed_area(face) * across > 0:
            light = 0.75 + 0.3 * canvas.sun * np.sign(across) * math.cos(place.yaw)
            canvas.polygon(face, body.colour * light, body.label, 0.06)
            _draw_side(canvas, body, lambda points, across=across: side(points, across), glass * light)
    _draw_ends(canvas, rng, place, body)


def _draw_side(canvas: Canvas, body: Body, side, glass: np.ndarray):
    low = body.profile[0, 1]
    start, stop = body.profile[:, 0].min(), body.profile[:, 0].max()
    canvas.polygon(side(np.array([(start, low), (start, low + 0.18), (stop, low + 0.18), (stop, low)])), body.trim)
    for pane in body.windows:
        canvas.polygon(side(pane), glass)
    turns = np.linspace(0, 2 * math.pi, 14, endpoint=False)
    circle = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    for along in body.wheels:
        for share, colour in ((1, (22, 22, 24)), (0.58, (120, 120, 124)), (0.2, (60, 60, 60))):
            canvas.polygon(
                side(circle * body.wheel_radius * share + (along, body.wheel_radius)), np.array(colour), body.label if share == 1 else None
            )


def _draw_ends(canvas: Canvas, rng: np.random.Generator, place: Place, body: Body):
    """Bumper, lights and, where ``body.plate`` says so, the licence plate of whichever end one sees; the wheels under it."""
    rear_seen = math.cos(place.yaw) > 0
    along = body.profile[0 if rear_seen else -1, 0] + (-0.01 if rear_seen else 0.01)
    low, half = body.profile[0, 1], body.width / 2

    def quad(a, b, bottom, top):
        return place([(a, bottom, along), (a, top, along), (b, top, along), (b, bottom, along)])

    if abs(math.cos(place.yaw)) < 0.35:
        return
    for sign in (-1, 1):
        canvas.polygon(quad(sign * (half - 0.28), sign * (half - 0.05), 0, low + 0.05), np.array([20.0, 20, 22]), body.label)
    canvas.polygon(quad(-half, half, low, low + 0.2), body.trim * 0.9)
    light = hsv(0, 0.85, rng.uniform(0.45, 1)) if rear_seen else hsv(0.12, 0.12, rng.uniform(0.7, 1))
    for sign in (-1, 1):
        canvas.polygon(quad(sign * (half - 0.36), sign * (half - 0.04), body.lights_up - 0.1, body.lights_up + 0.1), light)
    if body.plate is not None:
        canvas.polygon(quad(-0.26, 0.26, low + 0.22, low + 0.36), hsv(0.12, rng.uniform(0, 0.5), 0.85), body.plate)


# People, and what they ride.


def person(canvas: Canvas, rng: np.random.Generator, place: Place):
    """A man, woman or child, standing or walking."""
    tall = rng.uniform(1.5, 1.9) if rng.random() < 0.85 else rng.uniform(1.0, 1.4)
    stride, sway = rng.uniform(0, 0.35), rng.uniform(-0.1, 0.25)
    pose = {"hip": (0.14, 0.9, 0), "shoulder": (0.2, 1.42, 0.02), "head": (0, 1.63, 0.04)}
    pose |= {"knee": [(-0.11, 0.48, stride / 2 + 0.03), (0.11, 0.48, -stride / 2 + 0.05)], "foot": [(-0.11, 0.03, stride), (0.11, 0.03, -stride)]}
    pose |= {"elbow": [(-0.27, 1.15, -sway), (0.27, 1.15, sway)], "hand": [(-0.26, 0.88, -sway), (0.26, 0.88, sway + 0.1)]}
    _figure(canvas, rng, place, pose, tall / 1.75, LABEL["person"])


def rider(canvas: Canvas, rng: np.random.Generator, place: Place, seat: float):
    """Someone who sits at ``seat`` metres and holds a handlebar."""
    lift = seat - 0.85
    pose = {"hip": (0.14, 0.92 + lift, -0.2), "shoulder": (0.2, 1.4 + lift, 0.08), "head": (0, 1.62 + lift, 0.16)}
    pose |= {"knee": [(-0.14, 0.72 + lift, 0.2), (0.14, 0.62 + lift, 0.18)], "foot": [(-0.12, 0.36, 0.05), (0.12, 0.2, 0.0)]}
    pose |= {"elbow": [(-0.28, 1.2 + lift, 0.25), (0.28, 1.2 + lift, 0.25)], "hand": [(-0.26, 1.08, 0.48), (0.26, 1.08, 0.48)]}
    _figure(canvas, rng, place, pose, 1.0, LABEL["rider"])


def _figure(canvas: Canvas, rng: np.random.Generator, place: Place, pose: dict, scale: float, label: int):
    """Legs, torso, arms and head of a skeleton, far limbs first so that the near ones cover them."""
    skin = hsv(0.06, rng.uniform(0.25, 0.6), rng.uniform(0.25, 0.9))
    top = hsv(rng.random(), rng.uniform(0, 0.85), rng.uniform(0.1, 0.95))
    legs = hsv(rng.choice([0.6, 0.1, rng.random()]), rng.uniform(0, 0.6), rng.uniform(0.08, 0.6))
    sleeve = top * 0.85 if rng.random() < 0.6 else skin
    hips, shoulders = ([(-pose[joint][0], *pose[joint][1:]), pose[joint]] for joint in ("hip", "shoulder"))

    def pixels(*joints):
        return place(np.array(joints, np.float64) * scale)

    def limb(colour, width, *joints):
        canvas.line(pixels(*joints), colour, place.pixels(width * scale), label)

    for i in (0, 1):
        limb(legs * (0.8 + 0.2 * i), 0.16, hips[i], pose["knee"][i], pose["foot"][i])
        foot = np.array(pose["foot"][i])
        limb(np.array([30.0, 28, 26]), 0.1, foot, foot + (0, 0, 0.16))
    limb(sleeve * 0.85, 0.1, shoulders[0], pose["elbow"][0], pose["hand"][0])
    limb(top, 0.26, np.mean(shoulders, axis=0) - (0, 0.1, 0), np.mean(hips, axis=0))
    canvas.polygon(pixels(shoulders[0], shoulders[1], hips[1], hips[0]), top, label, 0.2)
    limb(sleeve, 0.1, shoulders[1], pose["elbow"][1], pose["hand"][1])
    head = pixels(pose["head"])[0]
    radius = 0.13 * scale * place.pixels(1.0)
    canvas.disc(head - (0, 0.25 * radius), radius * 1.08, hsv(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.05, 0.7)), label)
    canvas.disc(head + (0, 0.2 * radius), radius * 0.9, skin, label)


def bicycle(canvas: Canvas, rng: np.random.Generator, place: Place):
    """Two rings and a frame. The labels fill the rings, as the annotators draw them."""
    colour = hsv(rng.random(), rng.uniform(0, 0.9), rng.uniform(0.1, 0.9))
    tyre, tube = hsv(0.1, 0.1, rng.uniform(0.05, 0.25)), place.pixels(0.05)
    label = LABEL["bicycle"]
    for along in (-0.52, 0.52):
        ring = _wheel(place, along, 0.34)
        cv2.fillPoly(canvas.labels, [_fixed_point(ring)], label, shift=_SUBPIXEL_BITS)
        canvas.line(np.vstack([ring, ring[:1]]), tyre, place.pixels(0.06), label)
    crank, saddle, head, bar = (0, 0.3, -0.05), (0, 0.88, -0.2), (0, 0.85, 0.36), (0, 1.02, 0.4)
    for joints in ([(0, 0.34, -0.52), crank, head, saddle, crank], [(0, 0.34, -0.52), saddle], [(0, 0.34, 0.52), head, bar]):
        canvas.line(place(joints), colour, tube, label)
    canvas.line(place([(-0.28, 1.04, 0.38), (0.28, 1.04, 0.38)]), tyre, tube, label)
    canvas.line(place([(0, 0.92, -0.34), (0, 0.92, -0.1)]), tyre, place.pixels(0.09), label)


def motorcycle(canvas: Canvas, rng: np.random.Generator, place: Place):
    """Two fat wheels, an engine, a tank and a seat."""
    colour, dark = car_colour(rng), hsv(0.6, 0.1, rng.uniform(0.08, 0.25))
    label = LABEL["motorcycle"]
    for along in (-0.7, 0.7):
        ring = _wheel(place, along, 0.32)
        canvas.polygon(ring, dark * 1.6, label)
        canvas.line(np.vstack([ring, ring[:1]]), dark, place.pixels(0.13), label)
    canvas.polygon(place([(0, 0.3, -0.4), (0, 0.7, -0.4), (0, 0.72, 0.4), (0, 0.3, 0.4)]), dark * 2.2, label, 0.3)
    canvas.polygon(place([(0, 0.62, -0.9), (0, 0.88, -0.85), (0, 0.8, 0), (0, 1.02, 0.15), (0, 0.95, 0.55), (0, 0.6, 0.4)]), colour, label, 0.15)
    for joints, width in (
        ([(0, 0.4, 0.72), (0, 1.05, 0.5)], 0.1),
        ([(-0.36, 1.08, 0.45), (0.36, 1.08, 0.45)], 0.07),
        ([(0, 0.85, -0.8), (0, 0.84, 0)], 0.14),
    ):
        canvas.line(place(joints), dark, place.pixels(width), label)
    canvas.line(place([(0, 0.4, -0.7), (0, 0.95, 0.3)]), colour * 0.9, place.pixels(0.3), label)
    end = (0, 0.85, 0.75) if math.cos(place.yaw) < 0 else (0, 0.8, -0.92)
    canvas.disc(place([end])[0], place.pixels(0.1), hsv(0.1, 0.2, 0.95) if math.cos(place.yaw) < 0 else hsv(0, 0.8, 0.7), label)


def _wheel(place: Place, along: float, radius: float) -> np.ndarray:
    """(16, 2) pixels of a wheel that touches the ground."""
    turns = np.linspace(0, 2 * math.pi, 16, endpoint=False)
    return place(np.stack([0 * turns, radius + radius * np.sin(turns), along + radius * np.cos(turns)], axis=1))


# Trees and street furniture.


def tree(canvas: Canvas, rng: np.random.Generator, place: Place, height: float, leaf: np.ndarray):
    """A trunk and a crown of noisy lumps."""
    trunk, label = hsv(0.08, rng.uniform(0.15, 0.45), rng.uniform(0.15, 0.45)), LABEL["vegetation"]
    canvas.line(place([(0, 0, 0), (rng.uniform(-0.2, 0.2), height * 0.6, 0)]), trunk, place.pixels(rng.uniform(0.25, 0.5)), label)
    spread = height * rng.uniform(0.24, 0.36)
    for _ in range(3):
        middle = (rng.uniform(-0.45, 0.45) * spread, height * rng.uniform(0.6, 0.76), 0)
        foliage(canvas, place, middle, (spread * rng.uniform(0.75, 1), height * rng.uniform(0.2, 0.27)), leaf * rng.uniform(0.85, 1.15))


def palm(canvas: Canvas, rng: np.random.Generator, place: Place, height: float, leaf: np.ndarray):
    """A bare trunk with a tuft of hanging fronds."""
    label, lean = LABEL["vegetation"], rng.uniform(-0.6, 0.6)
    canvas.line(place([(0, 0, 0), (lean * 0.3, height / 2, 0), (lean, height, 0)]), hsv(0.09, 0.3, rng.uniform(0.3, 0.55)), place.pixels(0.35), label)
    for angle in np.linspace(-0.4, math.pi + 0.4, 11) + rng.uniform(-0.1, 0.1, 11):
        reach = np.array([[0, 0], [1.1, 0.5], [1.9, -0.3], [2.2, -1.2]]) * (math.cos(angle), 1) + (0, 0.6 * math.sin(angle))
        canvas.line(place([(lean + a, height + b, 0) for a, b in reach]), leaf * rng.uniform(0.6, 1.2), place.pixels(0.3), label)


def foliage(canvas: Canvas, place: Place, middle: tuple[float, float, float], radii: tuple[float, float], leaf: np.ndarray):
    """One lump of leaves: an ellipse of radii (across, up) metres with a ragged edge, lit from above and from the sun's side."""
    label = LABEL["vegetation"]
    centre = place([middle])[0]
    radii_px = np.array(radii) * place.pixels(1.0)
    region = canvas.region(np.array([centre - 1.2 * radii_px, centre + 1.2 * radii_px]))
    if region is None:
        return
    across = (np.arange(region[1].start, region[1].stop, dtype=np.float32) - centre[0])[None] / radii_px[0]  # (1, w)
    down = (np.arange(region[0].start, region[0].stop, dtype=np.float32) - centre[1])[:, None] / radii_px[1]  # (h, 1)
    rough = canvas.texture(down.shape[0], across.shape[1])  # (h, w)
    mask = across**2 + down**2 < 1 + 0.55 * rough
    shade = 0.85 + 0.55 * rough - 0.3 * down + 0.25 * canvas.sun * across
    canvas.paste(region, leaf.astype(np.float32) * shade[..., None], mask, label)


def lamp_post(canvas: Canvas, rng: np.random.Generator, place: Place, side: float):
    """A street lamp with its arm over the road; ``side`` is -1 left of the road, 1 right."""
    colour, tall = hsv(rng.random(), rng.uniform(0, 0.3), rng.uniform(0.12, 0.7)), rng.uniform(5, 9)
    arm = [(0, 0, 0), (0, tall, 0), (-side * rng.uniform(0.8, 2.2), tall + 0.25, 0)]
    canvas.line(place(arm), colour, place.pixels(0.16), LABEL["pole"])
    canvas.line(place(arm[:1] + [(0, 1.1, 0)]), colour * 0.8, place.pixels(0.24), LABEL["pole"])
    canvas.line(place([arm[2], (arm[2][0] - side * 0.5, tall + 0.2, 0)]), colour * 1.3 + 20, place.pixels(0.22), LABEL["pole"])


def utility_pole(canvas: Canvas, rng: np.random.Generator, place: Place):
    """A wooden mast with cross-arms."""
    colour, tall = hsv(0.08, rng.uniform(0.1, 0.45), rng.uniform(0.15, 0.45)), rng.uniform(7, 10)
    canvas.line(place([(0, 0, 0), (0, tall, 0)]), colour, place.pixels(0.28), LABEL["pole"])
    for up in (0.3, 1.1):
        canvas.line(place([(-1.1, tall - up, 0), (1.1, tall - up, 0)]), colour * 0.8, place.pixels(0.14), LABEL["pole"])


def bollard(canvas: Canvas, rng: np.random.Generator, place: Place):
    """A knee-high post that keeps cars off the sidewalk."""
    canvas.line(place([(0, 0, 0), (0, rng.uniform(0.7, 1.1), 0)]), car_colour(rng), place.pixels(0.14), LABEL["pole"])


def sign(canvas: Canvas, rng: np.random.Generator, place: Place):
    """A traffic sign on its pole: disc, triangle, octagon, plate or a large board; a seventh of them seen from behind."""
    up, size = rng.uniform(2.1, 2.9), rng.uniform(0.32, 0.5)
    canvas.line(place([(0, 0, 0), (0, up + size, 0)]), hsv(0.6, 0.08, rng.uniform(0.3, 0.65)), place.pixels(0.09), LABEL["pole"])
    corners = rng.choice([3, 4, 4, 8, 12, 12])
    turns = (np.arange(corners) + (0.5 if corners != 3 else 0.25)) * 2 * math.pi / corners + (math.pi if corners == 3 else 0)
    outline = np.stack([np.cos(turns), np.sin(turns), 0 * turns], axis=1) * (rng.uniform(0.8, 2.6) if corners == 4 else 1, rng.uniform(0.9, 1.1), 1)
    border, face = (
        (hsv(0, 0.85, 0.8), hsv(0.1, 0.05, 0.9)) if rng.random() < 0.5 else (hsv(0, 0, 0.9), hsv(rng.choice([0.6, 0.35, 0.13, 0.0]), 0.8, 0.7))
    )
    if rng.random() < 0.15:
        border = face = hsv(0.6, 0.05, rng.uniform(0.35, 0.6))
    for share, colour in ((1.0, border), (0.72, face)):
        canvas.polygon(place(outline * size * share + (0, up + size, 0)), colour * rng.uniform(0.7, 1), LABEL["traffic sign"])
    if face is not border and rng.random() < 0.6:
        canvas.line(place([(-0.4 * size, up + size, 0), (0.4 * size, up + size, 0)]), border if corners > 4 else face * 0.3, place.pixels(0.1))


def traffic_light(canvas: Canvas, rng: np.random.Generator, place: Place, side: float, over_road: bool):
    """A signal on its pole, or two of them, the second hung on an arm over the road; ``side`` as for the lamp post."""
    colour = hsv(rng.choice([0.3, 0.13, 0.6]), rng.uniform(0, 0.5), rng.uniform(0.1, 0.4))
    housing = hsv(rng.choice([0.13, 0.35, 0.6]), rng.uniform(0, 0.7), rng.uniform(0.08, 0.6))
    tall = 5.6 if over_road else 3.4
    reach = -side * rng.uniform(3, 5.5)
    joints = [(0, 0, 0), (0, tall, 0), (reach, tall + 0.2, 0)] if over_road else [(0, 0, 0), (0, tall, 0)]
    canvas.line(place(joints), colour, place.pixels(0.15), LABEL["pole"])
    lit = rng.integers(3)
    for across, up in [(0, 2.5), (reach, tall - 0.6)][: 1 + over_road]:
        canvas.polygon(place([(across + a, up + b, 0) for a, b in ((-0.2, 0), (-0.2, 1.05), (0.2, 1.05), (0.2, 0))]), housing, LABEL["traffic light"])
        for i, hue in enumerate((0.38, 0.12, 0.0)):
            lamp = hsv(hue, 0.85, 1.0 if i == lit else 0.22)
            canvas.disc(place([(across, up + 0.2 + 0.33 * i, -0.02)])[0], 0.12 * place.pixels(1.0), lamp)


def clutter(canvas: Canvas, rng: np.random.Generator, place: Place):
    """A bin, a cabinet or a bench: ``static``, which no class claims."""
    wide, tall, colour = rng.uniform(0.25, 0.7), rng.uniform(0.5, 1.3), hsv(rng.random(), rng.uniform(0, 0.7), rng.uniform(0.15, 0.7))
    box = np.array([(0, 0.02), (0, tall), (wide, tall), (wide, 0.02)])
    draw_body(canvas, rng, place, Body(LABEL["static"], box, wide, colour, lights_up=-9))
