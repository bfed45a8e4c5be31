"""Segmenting images that are too large for one pass: in windows that overlap, of which the middles
are kept.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

STRIDE = 32
"""Of the network. Windows begin at multiples of it, so that its grids lie in a window as they lie
in the whole image.
"""
MARGIN = 128
"""Pixels around the part of a window that is kept, whose context a pixel sees at the least, where
the image has them.
"""


class Window(NamedTuple):
    """``inside``: rows and columns of the image that the network sees; ``kept``: those of its
    answer that are used.
    """

    inside: tuple[slice, slice]
    kept: tuple[slice, slice]


def windows(size: tuple[int, int], tile: int, margin: int = MARGIN) -> Iterator[Window]:
    """Windows of at most ``tile`` pixels each way, whose kept parts cover an image of (height,
    width) ``size`` once.

    Raises ValueError unless ``tile`` and ``margin`` are multiples of STRIDE that leave something to
    keep.
    """
    if tile % STRIDE or margin % STRIDE or tile <= 2 * margin:
        raise ValueError(
            f"Tiles of {tile} pixels with a margin of {margin}: expected multiples of {STRIDE}, and"
            f" more than {2 * margin}."
        )
    for row_inside, row_kept in _spans(size[0], tile, margin):
        for column_inside, column_kept in _spans(size[1], tile, margin):
            yield Window((row_inside, column_inside), (row_kept, column_kept))


def _spans(length: int, tile: int, margin: int) -> Iterator[tuple[slice, slice]]:
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
    """``segment``, an (H, W, 3) image -> (H, W) trainIds, done window by window wherever the image
    is larger than ``tile``.

    Each window is segmented as if it were the image. For a network that looks no further than
    ``margin`` the answer is that of a single pass. BiSeNet's attention averages over all it is
    given: in tiles it averages over the tile, and answers may differ anywhere.
    """

    def segment_tiled(image: np.ndarray) -> np.ndarray:
        train_ids = np.empty(image.shape[:2], np.uint8)
        for inside, kept in windows(image.shape[:2], tile, margin):
            answer = segment(image[inside])
            rows, columns = (
                slice(k.start - i.start, k.stop - i.start)
                for k, i in zip(kept, inside, strict=True)
            )
            train_ids[kept] = answer[rows, columns]
        return train_ids

    return segment_tiled
