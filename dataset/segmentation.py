"""The one Dataset: a listing, an order and an augmentation -> samples. Sample number ``position`` is a function of (seed, position)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from dataset.files import read_image, read_label
from dataset.labels import TRAIN_ID_OF
from dataset.listing import Listing
from dataset.transforms import Origin, Window


class Geometry(Protocol):
    """What to take from an image: RandomScaleCropFlip or WholeImage."""

    def draw(self, rng: np.random.Generator, image_size: tuple[int, int]) -> Window: ...


Style = Callable[[np.ndarray, Origin, np.random.Generator], np.ndarray]
"""(region, where it comes from, rng) -> region: a change of look, before any resize. Regions are (h, w, 3) uint8 RGB."""


class Sample(NamedTuple):
    """``image`` (H, W, 3) uint8 RGB; ``label`` (H, W) uint8 trainIds, or None; ``index`` of the frame in its listing.

    A batch is a Sample too, its members stacked: (N, H, W, 3), (N, H, W) and (N,).
    """

    image: Tensor
    label: Tensor | None
    index: Tensor


class SegmentationDataset(Dataset):
    """Samples of ``listing``: ``order(position)`` says which frame, ``geometry`` which part of it, ``styles`` how it looks.

    ``stream`` tells apart data sets that share a seed (source and target), ``padding`` is the RGB value around small images.
    Raises what dataset.files raises, and ValueError when an image and its label differ in size.
    """

    def __init__(
        self,
        listing: Listing,
        geometry: Geometry,
        order: Callable[[int], int] = int,
        styles: Sequence[Style] = (),
        padding: tuple[int, int, int] = (0, 0, 0),
        seed: int = 0,
        stream: int = 0,
    ):
        self.listing, self.geometry, self.order, self.styles = listing, geometry, order, tuple(styles)
        self.padding, self.seed, self.stream = padding, seed, stream

    def __len__(self) -> int:
        return len(self.listing)

    def __getitem__(self, position: int) -> Sample:
        rng = np.random.default_rng((self.seed, self.stream, position))
        index = self.order(position)
        frame = self.listing[index]
        whole = read_image(frame.image)
        window = self.geometry.draw(rng, whole.shape[:2])
        origin = Origin(index, whole, window.source())
        region = whole[origin.where]
        for style in self.styles:
            region = style(region, origin, rng)
        image = window.apply_to_image(region, self.padding)
        return Sample(torch.from_numpy(image), self._label(frame, whole.shape[:2], window), torch.tensor(index))

    def _label(self, frame, image_size: tuple[int, int], window: Window) -> Tensor | None:
        if frame.label is None:
            return None
        label = read_label(frame.label)
        if label.shape != image_size:
            raise ValueError(
                f"{frame.image} is {image_size} and {frame.label} is {label.shape} (height, width); expected equal sizes. "
                "Remove the pair, or leave it out with a list."
            )
        return torch.from_numpy(window.apply_to_label(label[window.source()], TRAIN_ID_OF))


def collate(samples: list[Sample]) -> Sample:
    """Stacks samples to a batch, in a worker directly in the memory that it shares; labels stay None where there are none."""
    images, labels, indices = zip(*samples, strict=True)
    return Sample(default_collate(images), None if labels[0] is None else default_collate(labels), default_collate(indices))
