"""Order of the images: shuffled, cyclic, or rare classes more often; and the batch of each step.

Rare-class sampling (RCS): Hoyer et al., "DAFormer", CVPR 2022.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from torch.utils.data import Sampler
from tqdm import tqdm

from dataset.listing import ImageList


def class_pixels(listing: ImageList) -> np.ndarray:
    """(n, C) int64: number of pixels of each of the C trainIds in each of the n labels.

    A prepared root stores them. The labels of a raw root are all read, which takes minutes for tens
    of thousands of large ones.
    """
    if listing.statistics is not None and listing.statistics.classes is not None:
        return listing.statistics.classes[:, :-1]

    def count(index: int) -> np.ndarray:
        train_ids = listing.label_format.read_train_ids(listing[index].label)
        return np.bincount(train_ids.ravel(), minlength=256)[: len(listing.class_set)]

    progress = {"desc": "counting classes", "unit": "label", "disable": None, "dynamic_ncols": True}
    with ThreadPoolExecutor(8) as pool:
        counts = pool.map(count, range(len(listing)))
        return np.stack(list(tqdm(counts, total=len(listing), **progress)))


class RareClassIndex:
    """position -> image index: draws a class, rare ones more often, then one of its pixels.

    A class that covers the fraction f of all pixels has a probability proportional to
    exp((1 - f) / temperature) (RCS in DAFormer). Every pixel of the class is as likely as any
    other, so an image with a few pixels of it, from which nothing can be learned, hardly ever
    comes (DAFormer requires 3,000 pixels). The index is a function of (seed, rng_stream, position).
    ``pixels``: (n, C), see ``class_pixels``. Raises ValueError when no image holds any class.
    """

    def __init__(self, pixels: np.ndarray, seed: int, rng_stream: int, temperature: float = 0.01):
        self.seed, self.rng_stream = seed, rng_stream
        present = np.flatnonzero(pixels.sum(0))
        if not len(present):
            raise ValueError(
                f"None of the {len(pixels)} labels holds a pixel of any class. Expected labels as"
                " the class set names them, such as labelIds of Cityscapes or GTA5."
            )
        fraction = pixels.sum(0)[present] / pixels.sum()
        # Relative to the rarest class, or exp would overflow.
        unnormalized_probability = np.exp(((1 - fraction) - (1 - fraction).max()) / temperature)
        self.probability = unnormalized_probability / unnormalized_probability.sum()
        self.pixels_up_to = [np.cumsum(pixels[:, train_id]) for train_id in present]

    def __call__(self, position: int) -> int:
        # The 1 tells this generator from that of the sample, (seed, rng_stream, position).
        rng = np.random.default_rng((self.seed, self.rng_stream, position, 1))
        pixels_up_to = self.pixels_up_to[rng.choice(len(self.probability), p=self.probability)]
        return int(np.searchsorted(pixels_up_to, rng.integers(pixels_up_to[-1]), side="right"))


class ShuffledIndex:
    """position -> image index: a new permutation of all ``length`` images in every epoch.

    The permutation is a function of (seed, rng_stream, epoch).
    """

    def __init__(self, length: int, seed: int, rng_stream: int):
        self.length, self.seed, self.rng_stream = length, seed, rng_stream
        self._permutations: dict[int, np.ndarray] = {}

    def __call__(self, position: int) -> int:
        epoch, offset = divmod(position, self.length)
        if epoch not in self._permutations:
            # Keep the epoch before: workers may still ask for its last positions.
            self._permutations = {e: p for e, p in self._permutations.items() if e == epoch - 1}
            rng = np.random.default_rng((self.seed, self.rng_stream, epoch))
            self._permutations[epoch] = rng.permutation(self.length)
        return int(self._permutations[epoch][offset])


class CyclicIndex:
    """position -> image index: the order of the listing, over and over (recipe "authors")."""

    def __init__(self, length: int):
        self.length = length

    def __call__(self, position: int) -> int:
        return position % self.length


class StepBatches(Sampler):
    """Positions of the batch of each of the ``steps``: step k takes k * batch_size onwards.

    Positions never end, so every batch is full, and source and target loaders of different length
    stay together. ``shard``: (rank, world size); each process gets its part of every batch, whose
    size must be a multiple of the world size.
    """

    def __init__(self, batch_size: int, steps: range, shard: tuple[int, int] = (0, 1)):
        rank, world_size = shard
        self.batch_size, self.steps = batch_size, steps
        first, last = (batch_size * part // world_size for part in (rank, rank + 1))
        self.offsets = range(first, last)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            yield [step * self.batch_size + offset for offset in self.offsets]
