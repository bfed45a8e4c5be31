"""Segments images of any size: large ones in overlapping tiles, small ones with a border."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np
from torch import Tensor

Images = TypeVar("Images", np.ndarray, Tensor)

STRIDE = 32
"""Coarsest stride of the network's features. Tiles begin at its multiples, so that the grids of the
network have the same position in a tile as in the whole image.
"""
MARGIN = 128
"""Context around the kept part of a tile, in pixels; less only at the border of the image."""


class Tile(NamedTuple):
    """Rows and columns of a tile: ``input`` to the network, and ``kept`` of its prediction."""

    input: tuple[slice, slice]
    kept: tuple[slice, slice]


def tiles(size: tuple[int, int], tile: int, margin: int = MARGIN) -> Iterator[Tile]:
    """Yields tiles whose ``kept`` parts cover an image of ``size`` (height, width) exactly once.

    ``tile``: largest height and width of a tile, in pixels. Raises ValueError unless ``tile`` and
    ``margin`` are multiples of STRIDE and ``tile`` is larger than two margins.
    """
    if tile % STRIDE or margin % STRIDE or tile <= 2 * margin:
        raise ValueError(
            f"Tiles of {tile} pixels with a margin of {margin}: expected multiples of {STRIDE}, and"
            f" more than {2 * margin}."
        )
    for row_input, row_kept in _axis_tiles(size[0], tile, margin):
        for column_input, column_kept in _axis_tiles(size[1], tile, margin):
            yield Tile((row_input, column_input), (row_kept, column_kept))


def _axis_tiles(length: int, tile: int, margin: int) -> Iterator[tuple[slice, slice]]:
    """``tiles`` along one axis of ``length`` pixels: (input, kept)."""
    start = 0
    while True:
        first = max(0, start - margin)
        last = min(length, first + tile)
        stop = length if last == length else last - margin
        yield slice(first, last), slice(start, stop)
        if stop == length:
            return
        start = stop


def in_tiles(
    segment: Callable[[np.ndarray], np.ndarray], tile: int, margin: int = MARGIN
) -> Callable[[np.ndarray], np.ndarray]:
    """Wraps ``segment``, (H, W, 3) image -> (H, W) trainIds, to work in tiles of ``tile`` pixels.

    Each tile is segmented like an image. The result equals a single pass only for a network whose
    receptive field reaches at most ``margin`` pixels. The attention of BiSeNet averages over its
    whole input, here the tile: predictions may differ from a single pass at any pixel.
    """

    def segment_tiled(image: np.ndarray) -> np.ndarray:
        train_ids = np.empty(image.shape[:2], np.uint8)
        for region, kept in tiles(image.shape[:2], tile, margin):
            prediction = segment(image[region])
            rows, columns = (
                slice(k.start - r.start, k.stop - r.start)
                for k, r in zip(kept, region, strict=True)
            )
            train_ids[kept] = prediction[rows, columns]
        return train_ids

    return segment_tiled


def with_border(images: Images, min_size: int) -> Images:
    """Repeats the last row and column of images until both sides have ``min_size`` pixels.

    (N, H, W, 3) -> (N, max(H, min_size), max(W, min_size), 3); the image is the upper left part.
    """
    height, width = images.shape[1:3]
    if min(height, width) >= min_size:
        return images
    rows, columns = (
        np.minimum(np.arange(max(side, min_size)), side - 1) for side in (height, width)
    )
    return images[:, rows][:, :, columns]
