"""Fourier domain adaptation (FDA; Yang & Soatto, CVPR 2020): the source image takes the target
image's amplitudes at low frequencies.

Only (2b + 1)^2 frequencies of an image of H x W change, b = floor(beta * min(H, W)): the change is
a sum of as many waves, which can be written down for any region of the image without a transform of
the whole. So, as with LAB, transforming a crop equals cropping the transform, and of a target image
only these amplitudes are needed, relative to its number of pixels, so that sizes may differ.
"""

from functools import lru_cache

import numpy as np

from dataset.image_io import read_image
from dataset.listing import ImageList
from dataset.transforms import SourceRegion


@lru_cache(maxsize=64)
def _waves(length: int, reach: int) -> np.ndarray:
    """(2 reach + 1, length) complex64: e^(-2 pi i k x / length) for k from -reach to reach."""
    k, x = np.arange(-reach, reach + 1)[:, None], np.arange(length)
    return np.exp(-2j * np.pi * k * x / length).astype(np.complex64)


def low_frequencies(image: np.ndarray, reach: int) -> np.ndarray:
    """The Fourier coefficients of an (H, W, 3) image up to ``reach`` waves an axis, over H * W: (3,
    2 reach + 1, 2 reach + 1) complex.
    """
    height, width = image.shape[:2]
    channels = np.moveaxis(image, 2, 0).astype(np.float32)
    return _waves(height, reach) @ channels @ _waves(width, reach).T / (height * width)


def fourier_transfer(
    region: np.ndarray, origin: SourceRegion, target_amplitudes: np.ndarray
) -> np.ndarray:
    """FDA of a region: (h, w, 3) uint8 RGB -> the same, with ``target_amplitudes`` (3, k, k) in
    place of the whole source image's.
    """
    reach = target_amplitudes.shape[1] // 2
    own = low_frequencies(origin.whole, reach)
    amplitude = np.abs(own)
    # A frequency that the source lacks has no phase of its own: it keeps none.
    change = own * (target_amplitudes / np.maximum(amplitude, 1e-12) - 1)  # (3, k, k)
    rows, columns = (
        _waves(length, reach)[:, part].conj()
        for length, part in zip(origin.whole.shape[:2], origin.where, strict=True)
    )
    field = (rows.T @ change @ columns).real  # (3, h, w)
    return np.round(region + np.moveaxis(field, 0, 2)).clip(0, 255).astype(np.uint8)


class FourierTransfer:
    """A style step: gives a source image the low-frequency amplitudes of a target image drawn at
    random.

    ``beta``: how much of the shorter side's frequencies; the paper takes 0.01 to 0.09. The target
    image is read whole each time.
    """

    def __init__(self, target: ImageList, beta: float = 0.01):
        self.target, self.beta = target, beta

    def __call__(
        self, region: np.ndarray, origin: SourceRegion, rng: np.random.Generator
    ) -> np.ndarray:
        reach = int(self.beta * min(origin.whole.shape[:2]))
        target = read_image(self.target[int(rng.integers(len(self.target)))].image)
        return fourier_transfer(region, origin, np.abs(low_frequencies(target, reach)))
