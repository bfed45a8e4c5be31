"""Fourier domain adaptation (FDA; Yang & Soatto, CVPR 2020).

The source image takes the amplitudes of the target image at low frequencies. Only (2b + 1)^2
frequencies of an image of H x W change, b = floor(beta * min(H, W)). The change is a sum of that
many waves, which can be evaluated for any crop without transforming the whole image. As with LAB,
transforming a crop equals cropping the transformed image. Coefficients are divided by the number
of pixels, so that source and target may differ in size.
"""

from functools import lru_cache

import numpy as np

from dataset.image_io import read_image
from dataset.listing import ImageList
from dataset.transforms import CropOrigin


@lru_cache(maxsize=64)
def _waves(length: int, reach: int) -> np.ndarray:
    """(2 reach + 1, length) complex64: e^(-2 pi i k x / length) for k from -reach to reach."""
    k, x = np.arange(-reach, reach + 1)[:, None], np.arange(length)
    return np.exp(-2j * np.pi * k * x / length).astype(np.complex64)


def low_frequencies(image: np.ndarray, reach: int) -> np.ndarray:
    """Fourier coefficients of an (H, W, 3) image up to ``reach`` waves per axis, over H * W.

    Returns (3, 2 reach + 1, 2 reach + 1) complex.
    """
    height, width = image.shape[:2]
    channels = np.moveaxis(image, 2, 0).astype(np.float32)
    return _waves(height, reach) @ channels @ _waves(width, reach).T / (height * width)


def fourier_transfer(
    crop: np.ndarray, origin: CropOrigin, target_amplitudes: np.ndarray
) -> np.ndarray:
    """FDA of a crop: (h, w, 3) uint8 RGB -> the same, with the low frequencies of the target.

    ``target_amplitudes`` (3, k, k) replace those of the whole source image.
    """
    reach = target_amplitudes.shape[1] // 2
    source = low_frequencies(origin.full_image, reach)  # (3, k, k) complex
    # A frequency that the source lacks has no phase, and stays 0.
    change = source * (target_amplitudes / np.maximum(np.abs(source), 1e-12) - 1)  # (3, k, k)
    rows, columns = (
        _waves(length, reach)[:, part].conj()
        for length, part in zip(origin.full_image.shape[:2], origin.slices, strict=True)
    )
    added = (rows.T @ change @ columns).real  # (3, h, w)
    return np.round(crop + np.moveaxis(added, 0, 2)).clip(0, 255).astype(np.uint8)


class FourierTransfer:
    """Style transform: low-frequency amplitudes of a random target image.

    ``beta``: size of the replaced band, relative to the shorter side; the paper takes 0.01 to 0.09.
    The target image is read whole for every sample.
    """

    def __init__(self, target: ImageList, beta: float = 0.01):
        self.target, self.beta = target, beta

    def __call__(
        self, crop: np.ndarray, origin: CropOrigin, rng: np.random.Generator
    ) -> np.ndarray:
        reach = int(self.beta * min(origin.full_image.shape[:2]))
        target = read_image(self.target[int(rng.integers(len(self.target)))].image)
        return fourier_transfer(crop, origin, np.abs(low_frequencies(target, reach)))
