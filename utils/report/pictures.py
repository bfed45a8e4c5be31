"""Pictures for people: label maps in color with a legend, captions, contact sheets, confusion
matrices. All (h, w, 3) uint8 RGB.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

WHITE, INK, FAINT = (255, 255, 255), (30, 30, 30), (125, 125, 125)


def side_by_side(
    image: np.ndarray, label_maps: Sequence[np.ndarray], colors: np.ndarray, width: int = 512
) -> np.ndarray:
    """The image and its label maps side by side, each at most ``width`` wide.

    Args: image (H, W, 3) uint8 RGB; label_maps of (H, W) uint8 trainIds; colors (256, 3) uint8.
    Returns (h, w, 3) uint8 RGB.
    """
    shrink = min(1.0, width / image.shape[1])
    size = (
        max(1, round(image.shape[1] * shrink)),
        max(1, round(image.shape[0] * shrink)),
    )  # OpenCV: (width, height)
    pictures = [cv2.resize(image, size, interpolation=cv2.INTER_AREA)]
    pictures += [
        colors[cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)] for label in label_maps
    ]
    return np.concatenate(pictures, axis=1)


def overlay(
    image: np.ndarray, train_ids: np.ndarray, colors: np.ndarray, opacity: float = 0.55
) -> np.ndarray:
    """The colors of a label map over its image. Args: image (H, W, 3), train_ids (H, W) uint8,
    colors (256, 3) uint8.
    """
    return cv2.addWeighted(image, 1 - opacity, colors[train_ids], opacity, 0)


def resize_to_width(picture: np.ndarray, width: int) -> np.ndarray:
    """``picture`` at ``width``, its proportions kept: shrunk over areas, enlarged in blocks."""
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    interpolation = cv2.INTER_AREA if width < picture.shape[1] else cv2.INTER_NEAREST
    return cv2.resize(picture, (width, height), interpolation=interpolation)


def caption(
    text: str, width: int, size: int, color: tuple[int, int, int] = INK, align: str = "middle"
) -> np.ndarray:
    """One line of ``text``, ``size`` pixels large, on white, ``width`` wide; text that is too long
    is made smaller.

    ``align``: "middle" or "left".
    """
    picture = Image.new("RGB", (width, round(size * 1.7)), WHITE)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
    margin = size // 3
    if draw.textlength(text, font) > width - 2 * margin:
        font = ImageFont.load_default(
            max(6, size * (width - 2 * margin) / draw.textlength(text, font))
        )
    place, anchor = (width // 2, "mm") if align == "middle" else (margin, "lm")
    draw.text((place, picture.height // 2), text, color, font, anchor=anchor)
    return np.array(picture)


def legend(names: Sequence[str], colors: np.ndarray, width: int) -> np.ndarray:
    """The classes as swatches with their names, in as many columns as ``width`` has room for.
    ``colors`` (256, 3) uint8 by trainId.
    """
    size = int(np.clip(width / 70, 9, 24))
    font = ImageFont.load_default(size)
    cell = round(max(font.getlength(name) for name in names) + 3 * size)
    columns = max(1, min(len(names), width // cell))
    rows = -(-len(names) // columns)
    columns = -(-len(names) // rows)  # the same number of rows, filled evenly
    line, cell = round(size * 1.7), width // columns
    picture = Image.new("RGB", (width, rows * line + size // 2), WHITE)
    draw = ImageDraw.Draw(picture)
    for place, name in enumerate(names):
        x, y = place % columns * cell + size // 2, place // columns * line + size // 4 + line // 2
        draw.rectangle(
            (x, y - size // 2, x + round(1.4 * size), y + size // 2), tuple(colors[place].tolist())
        )
        draw.text((x + round(1.8 * size), y), name, INK, font, anchor="lm")
    return np.array(picture)


def stack(pictures: Sequence[np.ndarray], gap: int = 0) -> np.ndarray:
    """Pictures of any widths below each other, on white, ``gap`` pixels apart."""
    width = max(picture.shape[1] for picture in pictures)
    padded = [
        cv2.copyMakeBorder(p, 0, gap, 0, width - p.shape[1], cv2.BORDER_CONSTANT, value=WHITE)
        for p in pictures
    ]
    return np.concatenate(padded)[: -gap or None]


def with_legend(picture: np.ndarray, names: Sequence[str], colors: np.ndarray) -> np.ndarray:
    """``picture`` with the legend of the classes below it."""
    # A legend needs room for its longest name; the picture of a thumbnail is not enlarged for it.
    return stack([picture, legend(names, colors, max(160, picture.shape[1]))])


def image_grid(
    rows: Sequence[Sequence[np.ndarray]],
    heads: Sequence[str],
    titles: Sequence[str] | None = None,
    width: int = 512,
) -> np.ndarray:
    """A table of pictures: one column under each of ``heads``, every picture ``width`` wide, above
    each row its title.
    """
    gap, size = max(2, width // 85), int(np.clip(width / 22, 11, 24))
    side_by_side = [
        np.concatenate(
            [
                np.pad(resize_to_width(p, width), ((0, 0), (0, gap), (0, 0)), constant_values=255)
                for p in row
            ],
            1,
        )
        for row in rows
    ]
    head = np.concatenate(
        [
            np.pad(caption(name, width, size), ((0, 0), (0, gap), (0, 0)), constant_values=255)
            for name in heads
        ],
        1,
    )
    parts = [head]
    for place, row in enumerate(side_by_side):
        if titles is not None:
            parts.append(
                caption(titles[place], row.shape[1], round(size * 0.8), FAINT, align="left")
            )
        parts.append(row)
    return stack(parts, gap if titles is None else 0)[:, :-gap]


def confusion_picture(
    matrix: np.ndarray, names: Sequence[str], title: str, cell: int = 44
) -> np.ndarray:
    """A confusion matrix (C, C), rows ground truth, each row in percent of its pixels: dark where
    many pixels go.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    truth = matrix.sum(1, keepdims=True)
    share = np.divide(matrix, truth, out=np.zeros_like(matrix), where=truth > 0)
    count, font, small = len(names), ImageFont.load_default(17), ImageFont.load_default(14)
    left = top = round(max(font.getlength(name) for name in names)) + 20
    top += 54
    picture = Image.new("RGB", (left + count * cell + 20, top + count * cell + 20), WHITE)
    draw = ImageDraw.Draw(picture)
    draw.text((12, 10), title, INK, ImageFont.load_default(21))
    draw.text(
        (12, 38),
        "rows: ground truth, columns: prediction; percent of the row's pixels",
        FAINT,
        small,
    )
    for row in range(count):
        y = top + row * cell
        absent = truth[row, 0] == 0
        draw.text(
            (left - 10, y + cell // 2), names[row], FAINT if absent else INK, font, anchor="rm"
        )
        for column in range(count):
            x = left + column * cell
            # From white to a deep blue for what is right, to a deep red for what is wrong; the root
            # shows the small shares.
            deep = np.array((20, 60, 120) if row == column else (150, 25, 25))
            color = 255 + (deep - 255) * share[row, column] ** 0.6
            draw.rectangle(
                (x, y, x + cell - 2, y + cell - 2),
                (245, 245, 245) if absent else tuple(int(v) for v in color),
            )
            percent = round(100 * share[row, column])
            if percent:
                draw.text(
                    (x + cell // 2 - 1, y + cell // 2 - 1),
                    str(percent),
                    WHITE if share[row, column] > 0.35 else INK,
                    small,
                    anchor="mm",
                )
    for column in range(count):
        name = Image.new("RGB", (left, 24), WHITE)
        ImageDraw.Draw(name).text((0, 12), names[column], INK, font, anchor="lm")
        upright = name.rotate(90, expand=True)
        picture.paste(
            upright.crop((0, upright.height - (top - 64), 24, upright.height)),
            (left + column * cell + cell // 2 - 13, 60),
        )
    return np.array(picture)
