"""Rare-class sampling: images with rare classes come more often (DAFormer, Hoyer et al., CVPR 2022)."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from dataset.files import read_label
from dataset.labels import NUM_CLASSES, TRAIN_ID_OF
from dataset.listing import Listing


def class_pixels(listing: Listing) -> np.ndarray:
    """(n, 19) int64: how many pixels of each trainId the label of each image holds.

    A prepared root knows; of a raw one every label is read once, which takes minutes for tens of thousands of large ones.
    """
    if listing.facts is not None and listing.facts.classes is not None:
        return listing.facts.classes[:, :NUM_CLASSES]

    def count(index: int) -> np.ndarray:
        return np.bincount(TRAIN_ID_OF[read_label(listing[index].label)].ravel(), minlength=256)[:NUM_CLASSES]

    with ThreadPoolExecutor(8) as pool:
        counts = list(tqdm(pool.map(count, range(len(listing))), "counting classes", len(listing), unit="label", disable=None, dynamic_ncols=True))
    return np.stack(counts)


class RareClassOrder:
    """position -> index: a class is drawn, rare ones more often, and then an image that holds it. A function of (seed, stream, position).

    A class with the share f of all pixels has a probability in proportion to exp((1 - f) / temperature). ``pixels``: (n, C), as
    ``class_pixels`` gives them. Raises ValueError when no image holds any class.
    """

    def __init__(self, pixels: np.ndarray, seed: int, stream: int, temperature: float = 0.01):
        self.seed, self.stream = seed, stream
        present = np.flatnonzero(pixels.sum(0))
        if not len(present):
            raise ValueError(f"None of the {len(pixels)} labels holds a pixel of any class. Expected labelIds as in Cityscapes or GTA5.")
        share = pixels.sum(0)[present] / pixels.sum()
        wish = np.exp(((1 - share) - (1 - share).max()) / temperature)
        self.classes, self.probability = present, wish / wish.sum()
        self.images = [np.flatnonzero(pixels[:, c]) for c in present]

    def __call__(self, position: int) -> int:
        rng = np.random.default_rng((self.seed, self.stream, position, 1))  # the sample itself draws from (seed, stream, position)
        images = self.images[rng.choice(len(self.classes), p=self.probability)]
        return int(images[rng.integers(len(images))])
