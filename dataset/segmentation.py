"""The one Dataset: a listing, an order and an augmentation -> samples. Sample number ``position``
is a function of (seed, position).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from dataset.image_io import read_image, read_label
from dataset.labels import IGNORE_INDEX, TRAIN_ID_OF
from dataset.listing import Frame, ImageList
from dataset.transforms import CropWindow, SourceRegion, resize_area


class Geometry(Protocol):
    """What to take from an image: RandomScaleCropFlip or WholeImage."""

    def draw(self, rng: np.random.Generator, image_size: tuple[int, int]) -> CropWindow: ...


StyleTransform = Callable[[np.ndarray, SourceRegion, np.random.Generator], np.ndarray]
"""(region, where it comes from, rng) -> region: a change of look, before any resize. Regions are
(h, w, 3) uint8 RGB.
"""

_DRAWS = 10
"""Of a crop, at the most, until no class fills it."""
_STRIDE = 4
"""Every fourth pixel each way tells how much of a crop a class covers."""


class Sample(NamedTuple):
    """``image`` (H, W, 3) uint8 RGB; ``label`` (H, W) uint8 trainIds, or None; ``index`` of the
    frame in its listing; ``sample_seed``: a random number of the sample's own, for what is decided about
    it later; ``full_image`` (h, w, 3) uint8 RGB, all of the frame, and ``affine_theta`` (2, 3) float32, where
    in it the sample lies (CropWindow.affine_theta), or None.

    A batch is a Sample too, its members stacked: (N, H, W, 3), (N, H, W), (N,) and so on.
    """

    image: Tensor
    label: Tensor | None
    index: Tensor
    sample_seed: Tensor
    full_image: Tensor | None = None
    affine_theta: Tensor | None = None


class SegmentationDataset(Dataset):
    """Samples of ``listing``: ``order(position)`` says which frame, ``geometry`` which part of it,
    ``styles`` how it looks.

    ``rng_stream`` tells apart data sets that share a seed (source and target), ``padding`` is the RGB
    value around small images. ``valid_rows``: for a listing without labels. None: samples have none. A
    pair of shares of the height: ``label`` then is 0 where the image is, and 255 in the padding and
    in these rows at the top and at the bottom of the image (sky and bonnet). ``max_class_share``:
    of labelled images, a crop of which one class covers this share or more is drawn anew, up to ten
    times. ``context_size``: samples also bring the whole frame in this size, without ``styles``.
    Raises what dataset.files raises, and ValueError when an image and its label differ in size.
    """

    def __init__(
        self,
        listing: ImageList,
        geometry: Geometry,
        order: Callable[[int], int] = int,
        styles: Sequence[StyleTransform] = (),
        padding: tuple[int, int, int] = (0, 0, 0),
        seed: int = 0,
        rng_stream: int = 0,
        valid_rows: tuple[float, float] | None = None,
        max_class_share: float = 1.0,
        context_size: tuple[int, int] | None = None,
    ):
        self.listing, self.geometry, self.order, self.styles = (
            listing,
            geometry,
            order,
            tuple(styles),
        )
        self.padding, self.seed, self.rng_stream, self.valid_rows = (
            padding,
            seed,
            rng_stream,
            valid_rows,
        )
        self.max_class_share, self.context_size = max_class_share, context_size

    def __len__(self) -> int:
        return len(self.listing)

    def __getitem__(self, position: int) -> Sample:
        rng = np.random.default_rng((self.seed, self.rng_stream, position))
        index = self.order(position)
        frame = self.listing[index]
        whole = read_image(frame.image)
        label_ids = None if frame.label is None else self._label_ids(frame, whole.shape[:2])
        window = self._window(rng, whole.shape[:2], label_ids)
        origin = SourceRegion(index, whole, window.source())
        region = whole[origin.where]
        for style in self.styles:
            region = style(region, origin, rng)
        image = window.apply_to_image(region, self.padding)
        label = self._label(label_ids, whole.shape[:2], window)
        sample = Sample(
            torch.from_numpy(image), label, torch.tensor(index), torch.tensor(rng.integers(1 << 62))
        )
        if self.context_size is None:
            return sample
        return sample._replace(
            full_image=torch.from_numpy(resize_area(whole, self.context_size)),
            affine_theta=torch.from_numpy(window.affine_theta()),
        )

    def _label(
        self, label_ids: np.ndarray | None, image_size: tuple[int, int], window: CropWindow
    ) -> Tensor | None:
        """What the sample's label is: see Sample, and ``valid_rows`` where the frame has none."""
        if label_ids is not None:
            return torch.from_numpy(window.apply_to_label(label_ids[window.source()], TRAIN_ID_OF))
        return (
            None
            if self.valid_rows is None
            else torch.from_numpy(window.apply_to_label(self._inside(image_size)[window.source()]))
        )

    def _label_ids(self, frame: Frame, image_size: tuple[int, int]) -> np.ndarray:
        """The whole label, (H, W) uint8 labelIds. Raises ValueError where its size is not the
        image's.
        """
        label_ids = read_label(frame.label)
        if label_ids.shape != image_size:
            raise ValueError(
                f"{frame.image} is {image_size} and {frame.label} is {label_ids.shape} (height,"
                " width); expected equal sizes. Remove the pair, or leave it out with a list."
            )
        return label_ids

    def _window(
        self, rng: np.random.Generator, image_size: tuple[int, int], label_ids: np.ndarray | None
    ) -> CropWindow:
        """Draws a window, and others in its place while one class fills it: see
        ``max_class_share``.
        """
        window = self.geometry.draw(rng, image_size)
        if label_ids is None or self.max_class_share == 1:
            return window
        for _ in range(_DRAWS - 1):
            if largest_share(label_ids[window.source()]) < self.max_class_share:
                break
            window = self.geometry.draw(rng, image_size)
        return window

    def _inside(self, image_size: tuple[int, int]) -> np.ndarray:
        """(H, W) uint8: 255 in the rows that ``valid_rows`` leaves out, else 0."""
        inside = np.zeros(image_size, np.uint8)
        top, bottom = (round(share * image_size[0]) for share in self.valid_rows)
        inside[:top] = inside[image_size[0] - bottom :] = IGNORE_INDEX
        return inside


def common_size(listing: ImageList, pixels: float) -> tuple[int, int]:
    """A (height, width) for all frames of ``listing``, of the shape of the first and with about so
    many ``pixels``.

    Raises what dataset.files raises.
    """
    height, width = read_image(listing[0].image).shape[:2]
    factor = math.sqrt(pixels / (height * width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def largest_share(label_ids: np.ndarray) -> float:
    """Of an (h, w) uint8 label, the share of its pixels that the largest class has, as a sample of
    them tells; 1 where none has a class.
    """
    train_ids = TRAIN_ID_OF[label_ids[::_STRIDE, ::_STRIDE]]
    counts = np.bincount(train_ids[train_ids != IGNORE_INDEX])
    return counts.max() / counts.sum() if len(counts) else 1.0


def collate(samples: list[Sample]) -> Sample:
    """Stacks samples to a batch, in a worker directly in the memory that it shares; what they lack
    stays None.
    """
    return Sample(
        *(
            None if field[0] is None else default_collate(field)
            for field in zip(*samples, strict=True)
        )
    )
