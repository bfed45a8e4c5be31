"""Objects beside the road: trees, lamps, masts, signs, traffic lights, bollards and bins."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from dataset.demo.camera import Camera, Place
from dataset.demo.canvas import LABEL, Canvas, Layer, Thing, hsv
from dataset.demo.town import GAME, Side, Town
from dataset.demo.vehicles import Body, draw_body, paintwork


def greenery(canvas: Canvas, camera: Camera, town: Town) -> list[Thing]:
    """Trees along the curb and, fewer, in the gardens."""
    rng, things = canvas.rng, []
    for side in town.sides:
        rows = [(side.curb + 0.8, town.look.tree_share, Layer.OBJECTS)]
        if side.has_garden:
            rows.append(((side.walk + side.front) / 2, 0.5, Layer.HOUSES))
        for distance, share, layer in rows:
            ahead, palms = rng.uniform(6, 14), rng.random() < town.look.palm_share
            lined = rng.random() < 0.75
            while lined and ahead < 100:
                if town.beside_crossing(ahead - 2, ahead + 2) and rng.random() < share:
                    is_tall = palms or layer == Layer.OBJECTS
                    tall = rng.uniform(5, 10) if is_tall else rng.uniform(2, 8)
                    place = Place(camera, side.sign * (distance + rng.uniform(-0.2, 0.4)), ahead)
                    trunk, _ = canvas.shadows(place.right, ahead, 0.2, 0.2, 0)
                    _, crown = canvas.shadows(place.right, ahead, 1.5, 1.5, tall * 0.6)
                    draw_plant = _draw_palm if palms else _draw_tree
                    draw = partial(draw_plant, canvas, place, tall, town.leaf(rng))
                    things.append(Thing(layer, ahead, draw, (trunk, crown)))
                ahead += rng.uniform(6, 11)
    return things


def _draw_tree(canvas: Canvas, place: Place, height: float, leaf: np.ndarray) -> None:
    """Draws a trunk and a crown of noisy lumps."""
    rng = canvas.rng
    trunk = hsv(0.08, rng.uniform(0.15, 0.45), rng.uniform(0.15, 0.45))
    canvas.line(
        place([(0, 0, 0), (rng.uniform(-0.2, 0.2), height * 0.6, 0)]),
        trunk,
        place.pixels(rng.uniform(0.25, 0.5)),
        LABEL["vegetation"],
    )
    spread = height * rng.uniform(0.24, 0.36)
    for _ in range(3):
        middle = (rng.uniform(-0.45, 0.45) * spread, height * rng.uniform(0.6, 0.76), 0)
        radii = (spread * rng.uniform(0.75, 1), height * rng.uniform(0.2, 0.27))
        _draw_foliage(canvas, place, middle, radii, leaf * rng.uniform(0.85, 1.15))


def _draw_foliage(
    canvas: Canvas,
    place: Place,
    middle: tuple[float, float, float],
    radii: tuple[float, float],
    leaf: np.ndarray,
) -> None:
    """Draws a lump of leaves: an ellipse with a ragged edge, lit from above and by the sun.

    ``radii``: (across, up) in meters.
    """
    center = place([middle])[0]
    radii_px = np.array(radii) * place.pixels(1.0)
    region = canvas.region(np.array([center - 1.2 * radii_px, center + 1.2 * radii_px]))
    if region is None:
        return
    rows, columns = region
    x = np.arange(columns.start, columns.stop, dtype=np.float32)
    y = np.arange(rows.start, rows.stop, dtype=np.float32)
    across = (x - center[0])[None] / radii_px[0]  # (1, w)
    down = (y - center[1])[:, None] / radii_px[1]  # (h, 1)
    rough = canvas.texture(down.shape[0], across.shape[1])  # (h, w)
    mask = across**2 + down**2 < 1 + 0.55 * rough
    shade = 0.85 + 0.55 * rough - 0.3 * down + 0.25 * canvas.sun * across
    canvas.paste(region, leaf, shade, mask, LABEL["vegetation"])


def _draw_palm(canvas: Canvas, place: Place, height: float, leaf: np.ndarray) -> None:
    """Draws a bare trunk with hanging fronds."""
    rng, label = canvas.rng, LABEL["vegetation"]
    lean = rng.uniform(-0.6, 0.6)
    canvas.line(
        place([(0, 0, 0), (lean * 0.3, height / 2, 0), (lean, height, 0)]),
        hsv(0.09, 0.3, rng.uniform(0.3, 0.55)),
        place.pixels(0.35),
        label,
    )
    frond = np.array([[0, 0], [1.1, 0.5], [1.9, -0.3], [2.2, -1.2]])
    angles = (np.linspace(-0.4, math.pi + 0.4, 11) + rng.uniform(-0.1, 0.1, 11)).tolist()
    fronds = [frond * (math.cos(angle), 1) + (0, 0.6 * math.sin(angle)) for angle in angles]
    fronds = np.array(fronds) + (lean, height)  # (11, 4, 2)
    for line in place.at(fronds[..., 0], fronds[..., 1], np.zeros((11, 4))):
        canvas.line(line, leaf * rng.uniform(0.6, 1.2), place.pixels(0.3), label)


def furniture(canvas: Canvas, camera: Camera, town: Town) -> list[Thing]:
    """Lamp posts, masts, signs, traffic lights, bollards and bins along the curb."""
    rng, game, things = canvas.rng, town.look is GAME, []

    def add(draw: Callable, side: Side, ahead: float, *more) -> None:
        turned = draw in (_draw_sign, _draw_clutter)
        right = side.sign * (side.curb + rng.uniform(0.3, 0.7))
        place = Place(camera, right, ahead, rng.normal(0, 0.25) if turned else 0.0)
        if abs(right - camera.right) > 0.8 or ahead > 12:
            shadows = canvas.shadows(right, ahead, 0.1, 0.1, 4)
            things.append(Thing(Layer.OBJECTS, ahead, partial(draw, canvas, place, *more), shadows))

    for side in town.sides:
        post = (_draw_mast,) if game and rng.random() < 0.5 else (_draw_lamp, side.sign)
        for ahead in np.arange(rng.uniform(5, 18), 90, rng.uniform(14, 24)).tolist():
            add(post[0], side, ahead, *post[1:])
        for _ in range(rng.integers(0, 5)):
            add(_draw_sign, side, rng.uniform(6, 45))
        for _ in range(rng.integers(0, 3)):
            add(_draw_clutter, side, rng.uniform(7, 30))
        if town.look.hood and rng.random() >= 0.3:
            start = rng.uniform(6, 20)
            for i in range(rng.integers(0, 7)):
                add(_draw_bollard, side, start + 1.6 * i)
    if town.crossing or rng.random() < 0.35:
        ahead = town.crossing[0] - 1 if town.crossing else rng.uniform(10, 30)
        for side in town.sides:
            over_road = bool(rng.random() < (0.6 if game else 0.25))
            add(_draw_traffic_light, side, ahead, side.sign, over_road)
    return things


def _draw_lamp(canvas: Canvas, place: Place, side: int) -> None:
    """Draws a street lamp; ``side`` is -1 left of the road, 1 right. Its arm is over the road."""
    rng = canvas.rng
    color, tall = hsv(rng.random(), rng.uniform(0, 0.3), rng.uniform(0.12, 0.7)), rng.uniform(5, 9)
    reach = -side * rng.uniform(0.8, 2.2)
    for joints, paint, width in (
        ([(0, 0, 0), (0, tall, 0), (reach, tall + 0.25, 0)], color, 0.16),
        ([(0, 0, 0), (0, 1.1, 0)], color * 0.8, 0.24),
        ([(reach, tall + 0.25, 0), (reach - side * 0.5, tall + 0.2, 0)], color * 1.3 + 20, 0.22),
    ):
        canvas.line(place(joints), paint, place.pixels(width), LABEL["pole"])


def _draw_mast(canvas: Canvas, place: Place) -> None:
    """Draws a wooden mast with cross-arms, for cables."""
    rng = canvas.rng
    color, tall = hsv(0.08, rng.uniform(0.1, 0.45), rng.uniform(0.15, 0.45)), rng.uniform(7, 10)
    canvas.line(place([(0, 0, 0), (0, tall, 0)]), color, place.pixels(0.28), LABEL["pole"])
    for down in (0.3, 1.1):
        arm = place([(-1.1, tall - down, 0), (1.1, tall - down, 0)])
        canvas.line(arm, color * 0.8, place.pixels(0.14), LABEL["pole"])


def _draw_bollard(canvas: Canvas, place: Place) -> None:
    """Draws a knee-high post that keeps cars off the sidewalk."""
    post = place([(0, 0, 0), (0, canvas.rng.uniform(0.7, 1.1), 0)])
    canvas.line(post, paintwork(canvas.rng), place.pixels(0.14), LABEL["pole"])


def _draw_sign(canvas: Canvas, place: Place) -> None:
    """Draws a traffic sign on its pole: disc, triangle, octagon, plate or a large board.

    About one in seven is seen from behind.
    """
    rng = canvas.rng
    up, size = rng.uniform(2.1, 2.9), rng.uniform(0.32, 0.5)
    metal = hsv(0.6, 0.08, rng.uniform(0.3, 0.65))
    canvas.line(place([(0, 0, 0), (0, up + size, 0)]), metal, place.pixels(0.09), LABEL["pole"])
    corners = rng.choice([3, 4, 4, 8, 12, 12])
    start, turned = (0.25, math.pi) if corners == 3 else (0.5, 0)
    turns = (np.arange(corners) + start) * 2 * math.pi / corners + turned
    stretch = (rng.uniform(0.8, 2.6) if corners == 4 else 1, rng.uniform(0.9, 1.1), 1)
    outline = np.stack([np.cos(turns), np.sin(turns), 0 * turns], axis=1) * stretch  # (corners, 3)
    if rng.random() < 0.5:
        border, face = hsv(0, 0.85, 0.8), hsv(0.1, 0.05, 0.9)
    else:
        border, face = hsv(0, 0, 0.9), hsv(rng.choice([0.6, 0.35, 0.13, 0.0]), 0.8, 0.7)
    from_behind = rng.random() < 0.15
    if from_behind:
        border = face = hsv(0.6, 0.05, rng.uniform(0.35, 0.6))
    for share, color in ((1.0, border), (0.72, face)):
        points = place(outline * size * share + (0, up + size, 0))
        canvas.polygon(points, color * rng.uniform(0.7, 1), LABEL["traffic sign"])
    if not from_behind and rng.random() < 0.6:
        bar = place([(-0.4 * size, up + size, 0), (0.4 * size, up + size, 0)])
        canvas.line(bar, border if corners > 4 else face * 0.3, place.pixels(0.1))


def _draw_traffic_light(canvas: Canvas, place: Place, side: int, over_road: bool) -> None:
    """Draws a traffic light on its pole, or two, the second on an arm over the road.

    ``side``: -1 left of the road, 1 right.
    """
    rng = canvas.rng
    color = hsv(rng.choice([0.3, 0.13, 0.6]), rng.uniform(0, 0.5), rng.uniform(0.1, 0.4))
    housing = hsv(rng.choice([0.13, 0.35, 0.6]), rng.uniform(0, 0.7), rng.uniform(0.08, 0.6))
    tall, reach = 5.6 if over_road else 3.4, -side * rng.uniform(3, 5.5)
    joints, signals = [(0, 0, 0), (0, tall, 0)], [(0, 2.5)]
    if over_road:
        joints.append((reach, tall + 0.2, 0))
        signals.append((reach, tall - 0.6))
    canvas.line(place(joints), color, place.pixels(0.15), LABEL["pole"])
    lit = rng.integers(3)
    for across, up in signals:
        box = [(across + a, up + b, 0) for a, b in ((-0.2, 0), (-0.2, 1.05), (0.2, 1.05), (0.2, 0))]
        canvas.polygon(place(box), housing, LABEL["traffic light"])
        for i, hue in enumerate((0.38, 0.12, 0.0)):  # green, yellow, red
            lamp = hsv(hue, 0.85, 1.0 if i == lit else 0.22)
            center = place([(across, up + 0.2 + 0.33 * i, -0.02)])[0]
            canvas.disc(center, 0.12 * place.pixels(1.0), lamp)


def _draw_clutter(canvas: Canvas, place: Place) -> None:
    """Draws a bin, a cabinet or a bench, labelled ``static``, which is not evaluated."""
    rng = canvas.rng
    wide, tall = rng.uniform(0.25, 0.7), rng.uniform(0.5, 1.3)
    color = hsv(rng.random(), rng.uniform(0, 0.7), rng.uniform(0.15, 0.7))
    box = np.array([(0, 0.02), (0, tall), (wide, tall), (wide, 0.02)])
    draw_body(canvas, place, Body(LABEL["static"], box, wide, color, lights_up=-9))
