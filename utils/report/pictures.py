"""Pictures of predictions: colored label maps, legends, captions, grids, confusion matrices.

Every function returns an (h, w, 3) uint8 RGB array.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

WHITE, INK, MUTED = (255, 255, 255), (30, 30, 30), (125, 125, 125)


def side_by_side(
    image: np.ndarray, label_maps: Sequence[np.ndarray], colors: np.ndarray, width: int = 512
) -> np.ndarray:
    """The image and its label maps side by side, each at most ``width`` wide.

    Args: image (H, W, 3) uint8 RGB; label_maps: (H, W) uint8 trainIds; colors (256, 3) uint8.
    """
    shrink = min(1.0, width / image.shape[1])
    # OpenCV's sizes are (width, height).
    size = max(1, round(image.shape[1] * shrink)), max(1, round(image.shape[0] * shrink))
    pictures = [cv2.resize(image, size, interpolation=cv2.INTER_AREA)]
    for label in label_maps:
        pictures.append(colors[cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)])
    return np.concatenate(pictures, axis=1)


def overlay(
    image: np.ndarray, train_ids: np.ndarray, colors: np.ndarray, opacity: float = 0.55
) -> np.ndarray:
    """The colors of a label map blended over its image.

    Args: image (H, W, 3) uint8 RGB; train_ids (H, W) uint8; colors (256, 3) uint8.
    """
    return cv2.addWeighted(image, 1 - opacity, colors[train_ids], opacity, 0)


def resize_to_width(picture: np.ndarray, width: int) -> np.ndarray:
    """Resizes to ``width``, keeping proportions: area average if smaller, nearest if larger."""
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    return _resized(picture, (height, width))


def _resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes to ``size`` (height, width): area average if narrower, nearest if wider."""
    interpolation = cv2.INTER_AREA if size[1] < picture.shape[1] else cv2.INTER_NEAREST
    return cv2.resize(picture, size[::-1], interpolation=interpolation)


def caption(
    text: str, width: int, size: int, color: tuple[int, int, int] = INK, align: str = "middle"
) -> np.ndarray:
    """One line of ``text`` on white, ``size`` pixels high, or smaller if it does not fit.

    ``align``: "middle" or "left".
    """
    picture = Image.new("RGB", (width, round(size * 1.7)), WHITE)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
    margin = size // 3
    room = width - 2 * margin
    if draw.textlength(text, font) > room:
        font = ImageFont.load_default(max(6, size * room / draw.textlength(text, font)))
    x, anchor = (width // 2, "mm") if align == "middle" else (margin, "lm")
    draw.text((x, picture.height // 2), text, color, font, anchor=anchor)
    return np.array(picture)


def legend(names: Sequence[str], colors: np.ndarray, width: int) -> np.ndarray:
    """The colors of the classes with their names, in as many columns as fit into ``width``.

    ``colors``: (256, 3) uint8 by trainId.
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
    for index, name in enumerate(names):
        row, column = divmod(index, columns)
        x, y = column * cell + size // 2, row * line + size // 4 + line // 2
        swatch = (x, y - size // 2, x + round(1.4 * size), y + size // 2)
        draw.rectangle(swatch, tuple(colors[index].tolist()))
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
    # The longest name of a class needs 160 pixels, which a small picture does not have.
    return stack([picture, legend(names, colors, max(160, picture.shape[1]))])


def grid_size(size: tuple[int, int], width: int) -> tuple[int, int]:
    """(height, width) of a picture of ``size`` in an ``image_grid``: ``width``, or less if narrow.

    No picture is higher than twice ``width``.
    """
    height = max(1, round(size[0] * width / size[1]))
    if height <= 2 * width:
        return height, width
    return 2 * width, max(1, round(size[1] * 2 * width / size[0]))


def grid_gap(width: int) -> int:
    """Pixels between the pictures of an ``image_grid``."""
    return max(2, width // 85)


def in_grid_size(picture: np.ndarray, width: int) -> np.ndarray:
    """Resizes to ``grid_size``, and adds white on the right up to ``width``."""
    height, own_width = grid_size(picture.shape[:2], width)
    resized = _resized(picture, (height, own_width))
    return np.pad(resized, ((0, 0), (0, width - own_width), (0, 0)), constant_values=255)


def image_grid(
    rows: Sequence[Sequence[np.ndarray]],
    heads: Sequence[str],
    titles: Sequence[str] | None = None,
    width: int = 512,
) -> np.ndarray:
    """A table of pictures, each of them ``in_grid_size``.

    ``heads``: a text above each column; ``titles``: a text above each row.
    """
    gap, size = grid_gap(width), int(np.clip(width / 22, 11, 24))

    def beside(pictures: Sequence[np.ndarray]) -> np.ndarray:
        padding = ((0, 0), (0, gap), (0, 0))
        return np.concatenate([np.pad(p, padding, constant_values=255) for p in pictures], 1)

    parts = [beside([caption(name, width, size) for name in heads])]
    for index, row in enumerate(rows):
        pictures = beside([in_grid_size(picture, width) for picture in row])
        if titles is not None:
            small = round(size * 0.8)
            parts.append(caption(titles[index], pictures.shape[1], small, MUTED, align="left"))
        parts.append(pictures)
    return stack(parts, gap if titles is None else 0)[:, :-gap]


def confusion_picture(
    matrix: np.ndarray, names: Sequence[str], title: str, cell: int = 44
) -> np.ndarray:
    """A confusion matrix (C, C), rows the ground truth, in percent of the pixels of a row."""
    matrix = np.asarray(matrix, dtype=np.float64)
    pixels = matrix.sum(1, keepdims=True)
    fractions = np.divide(matrix, pixels, out=np.zeros_like(matrix), where=pixels > 0)
    count, font, small = len(names), ImageFont.load_default(17), ImageFont.load_default(14)
    left = round(max(font.getlength(name) for name in names)) + 20
    top = left + 54
    large = ImageFont.load_default(21)
    explanation = "rows: ground truth, columns: prediction; percent of the row's pixels"
    texts = max(large.getlength(title), small.getlength(explanation))
    # Of few classes, the matrix is narrower than the texts above it.
    width = max(left + count * cell, 12 + round(texts)) + 20
    picture = Image.new("RGB", (width, top + count * cell + 20), WHITE)
    draw = ImageDraw.Draw(picture)
    draw.text((12, 10), title, INK, large)
    draw.text((12, 38), explanation, MUTED, small)
    for row, name in enumerate(names):
        y = top + row * cell
        absent = pixels[row, 0] == 0
        color = MUTED if absent else INK
        draw.text((left - 10, y + cell // 2), name, color, font, anchor="rm")
        for column, fraction in enumerate(fractions[row]):
            x = left + column * cell
            color = (245, 245, 245) if absent else _cell_color(fraction, row == column)
            draw.rectangle((x, y, x + cell - 2, y + cell - 2), color)
            if percent := round(100 * fraction):
                center = x + cell // 2 - 1, y + cell // 2 - 1
                color = WHITE if fraction > 0.35 else INK
                draw.text(center, str(percent), color, small, anchor="mm")
    for column, name in enumerate(names):
        text = Image.new("RGB", (left, 24), WHITE)
        ImageDraw.Draw(text).text((0, 12), name, INK, font, anchor="lm")
        upright = text.rotate(90, expand=True)
        upright = upright.crop((0, upright.height - (top - 64), 24, upright.height))
        picture.paste(upright, (left + column * cell + cell // 2 - 13, 60))
    return np.array(picture)


def _cell_color(fraction: float, correct: bool) -> tuple[int, ...]:
    """White at 0; deep blue (correct) or deep red at 1. The exponent shows small fractions."""
    deep = np.array((20, 60, 120) if correct else (150, 25, 25))
    return tuple(int(value) for value in 255 + (deep - 255) * fraction**0.6)
