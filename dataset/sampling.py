"""Rare-class sampling: images with rare classes come more often (DAFormer, Hoyer et al., CVPR
2022).
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from torch.utils.data import Sampler
from tqdm import tqdm

from dataset.image_io import read_label
from dataset.labels import NUM_CLASSES, TRAIN_ID_OF
from dataset.listing import ImageList


def class_pixels(listing: ImageList) -> np.ndarray:
    """(n, 19) int64: how many pixels of each trainId the label of each image holds.

    A prepared root knows; of a raw one every label is read once, which takes minutes for tens of
    thousands of large ones.
    """
    if listing.statistics is not None and listing.statistics.classes is not None:
        return listing.statistics.classes[:, :NUM_CLASSES]

    def count(index: int) -> np.ndarray:
        return np.bincount(TRAIN_ID_OF[read_label(listing[index].label)].ravel(), minlength=256)[
            :NUM_CLASSES
        ]

    with ThreadPoolExecutor(8) as pool:
        counts = list(
            tqdm(
                pool.map(count, range(len(listing))),
                "counting classes",
                len(listing),
                unit="label",
                disable=None,
                dynamic_ncols=True,
            )
        )
    return np.stack(counts)


class RareClassIndex:
    """position -> index: a class is drawn, rare ones more often, and then an image that holds it. A
    function of (seed, rng_stream, position).

    A class with the share f of all pixels has a probability in proportion to exp((1 - f) /
    temperature). ``pixels``: (n, C), as ``class_pixels`` gives them. Raises ValueError when no
    image holds any class.
    """

    def __init__(self, pixels: np.ndarray, seed: int, rng_stream: int, temperature: float = 0.01):
        self.seed, self.rng_stream = seed, rng_stream
        present = np.flatnonzero(pixels.sum(0))
        if not len(present):
            raise ValueError(
                f"None of the {len(pixels)} labels holds a pixel of any class. Expected labelIds as"
                " in Cityscapes or GTA5."
            )
        share = pixels.sum(0)[present] / pixels.sum()
        wish = np.exp(((1 - share) - (1 - share).max()) / temperature)
        self.classes, self.probability = present, wish / wish.sum()
        self.images = [np.flatnonzero(pixels[:, c]) for c in present]

    def __call__(self, position: int) -> int:
        rng = np.random.default_rng(
            (self.seed, self.rng_stream, position, 1)
        )  # the sample itself draws from (seed, rng_stream, position)
        images = self.images[rng.choice(len(self.classes), p=self.probability)]
        return int(images[rng.integers(len(images))])


class ShuffledIndex:
    """position -> index: every epoch a new permutation of ``length`` frames, a function of (seed,
    rng_stream, epoch).
    """

    def __init__(self, length: int, seed: int, rng_stream: int):
        self.length, self.seed, self.rng_stream = length, seed, rng_stream
        self._permutations: dict[int, np.ndarray] = {}

    def __call__(self, position: int) -> int:
        epoch, place = divmod(position, self.length)
        if epoch not in self._permutations:
            self._permutations = {
                e: p for e, p in self._permutations.items() if e == epoch - 1
            }  # at most two are alive
            self._permutations[epoch] = np.random.default_rng(
                (self.seed, self.rng_stream, epoch)
            ).permutation(self.length)
        return int(self._permutations[epoch][place])


class CyclicIndex:
    """position -> index: the listing's own order, again and again (the target of the recipe
    "authors").
    """

    def __init__(self, length: int):
        self.length = length

    def __call__(self, position: int) -> int:
        return position % self.length


class StepBatches(Sampler):
    """The positions of each step from ``first_step`` to ``last_step`` (exclusive): step k takes k *
    batch_size onwards.

    Positions never end, so every batch is full and two loaders of different length never stop at
    the shorter one. Of several processes number ``rank`` of ``world`` takes its part of every
    batch, which ``world`` must divide.
    """

    def __init__(
        self, batch_size: int, first_step: int, last_step: int, rank: int = 0, world: int = 1
    ):
        self.batch_size, self.first_step, self.last_step = batch_size, first_step, last_step
        self.part = range(batch_size)[rank * batch_size // world : (rank + 1) * batch_size // world]

    def __len__(self) -> int:
        return max(0, self.last_step - self.first_step)

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first_step, self.last_step):
            yield [step * self.batch_size + place for place in self.part]
