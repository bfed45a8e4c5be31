"""Strong augmentation (color jitter, blur, hidden blocks) of images on the device.

Parameters are drawn on the CPU from a seed for each image, so a GPU is never waited for.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from model.preprocessing import InputNormalization


class StrongAugmentation:
    """Color jitter and blur of normalized images (DACS, Tranheden et al., WACV 2021).

    ``random_color_matrix(rng)`` gives an affine map (3, 4) of RGB values in 0-255,
    ``random_blur_sigma(rng)`` the standard deviation of a Gaussian in pixels. They are applied to
    an image with probability ``p_jitter`` and ``p_blur``. ``normalize``: the images' normalization.
    """

    def __init__(
        self,
        random_color_matrix: Callable[[np.random.Generator], np.ndarray],
        random_blur_sigma: Callable[[np.random.Generator], float],
        p_jitter: float,
        p_blur: float,
        normalize: InputNormalization,
    ):
        self.random_color_matrix, self.random_blur_sigma = random_color_matrix, random_blur_sigma
        self.p_jitter, self.p_blur = p_jitter, p_blur
        self.mean, self.std = np.array(normalize.mean), np.array(normalize.std)
        self.channels = slice(None, None, -1 if normalize.channel_order == "bgr" else 1)

    def __call__(self, images: Tensor, sample_seeds: Sequence[int]) -> Tensor:
        """New images of the same shape and layout as ``images`` (N, 3, H, W)."""
        augmented = []
        for image, seed in zip(images, sample_seeds, strict=True):
            rng = np.random.default_rng(seed)
            if rng.random() < self.p_jitter:
                image = self._recolor(image, self.random_color_matrix(rng))
            if rng.random() < self.p_blur:
                sigma = self.random_blur_sigma(rng)
                kernel_size = 2 * math.ceil(3 * sigma) + 1
                image = functional.gaussian_blur(image, [kernel_size] * 2, [sigma] * 2)
            augmented.append(image)
        return torch.stack(augmented).contiguous(memory_format=torch.channels_last)

    def _recolor(self, image: Tensor, matrix: np.ndarray) -> Tensor:
        """Applies a color map of pixel values to normalized values (3, H, W), and clips them."""
        linear, offset = matrix[self.channels, :3][:, self.channels], matrix[self.channels, 3]
        # y = A x + b of pixel values, with x = std * u + mean, is an affine map of u as well.
        linear, offset = (
            linear * self.std / self.std[:, None],
            (linear @ self.mean + offset - self.mean) / self.std,
        )
        low, high = -self.mean / self.std, (255 - self.mean) / self.std
        linear, offset, low, high = (
            torch.tensor(value, dtype=image.dtype).to(image.device, non_blocking=True)
            for value in (linear, offset, low, high)
        )
        recolored = torch.einsum("dc,chw->dhw", linear, image) + offset[:, None, None]
        return recolored.clamp(low[:, None, None], high[:, None, None])


MASK_BLOCKS = 8
"""Blocks along the shorter side of an image: 16 pixels of 128, 64 of 512 as in the paper."""


def random_blocks(label: Tensor, fraction: float, sample_seeds: Sequence[int]) -> Tensor:
    """Hides square blocks, each with probability ``fraction`` (MIC: Hoyer et al., CVPR 2023).

    ``label`` (N, H, W) gives size and device; ``sample_seeds``: a random integer for each image.
    Returns (N, H, W) bool, True where hidden.
    """
    height, width = label.shape[-2:]
    side = max(1, min(height, width) // MASK_BLOCKS)
    rows, columns = -(-height // side), -(-width // side)
    # Another random stream than the one of StrongAugmentation, which has the same seeds.
    draws = [np.random.default_rng((seed, 1)).random((rows, columns)) for seed in sample_seeds]
    hidden = torch.from_numpy(np.stack(draws) < fraction).to(label.device, non_blocking=True)
    hidden = hidden.repeat_interleave(side, 1).repeat_interleave(side, 2)
    return hidden[:, :height, :width]
