"""Changes of look on the device, for images that are made there. Drawn on the host, image by image;
nothing waits for a GPU.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional


class StrongAugmentation:
    """Colors and blur of normalized images change at random (DACS, Tranheden et al., WACV 2021).

    ``draw_colors(rng)`` gives an affine map (3, 4) of RGB values in 0-255, ``draw_blur(rng)`` a
    Gaussian's standard deviation in pixels; each is applied to an image with probability
    ``p_colors`` and ``p_blur``. ``mean`` and ``std``: of the normalization, in 0-255 and in
    ``channel_order``, "rgb" or "bgr", which is also that of the images.
    """

    def __init__(
        self,
        draw_colors: Callable[[np.random.Generator], np.ndarray],
        draw_blur: Callable[[np.random.Generator], float],
        p_colors: float,
        p_blur: float,
        mean: Sequence[float],
        std: Sequence[float],
        channel_order: str = "rgb",
    ):
        self.draw_colors, self.draw_blur, self.p_colors, self.p_blur = (
            draw_colors,
            draw_blur,
            p_colors,
            p_blur,
        )
        self.mean, self.std, self.order = (
            np.array(mean),
            np.array(std),
            slice(None, None, -1 if channel_order == "bgr" else 1),
        )

    def __call__(self, images: Tensor, draws: Sequence[int]) -> Tensor:
        """images (N, 3, H, W); ``draws``: a random number for each. Returns new images of the same
        shape and layout.
        """
        changed = []
        for image, draw in zip(images, draws, strict=True):
            rng = np.random.default_rng(draw)
            if rng.random() < self.p_colors:
                image = self._recolor(image, self.draw_colors(rng))
            if rng.random() < self.p_blur:
                sigma = self.draw_blur(rng)
                image = functional.gaussian_blur(
                    image, [2 * math.ceil(3 * sigma) + 1] * 2, [sigma] * 2
                )
            changed.append(image)
        return torch.stack(changed).contiguous(memory_format=torch.channels_last)

    def _recolor(self, image: Tensor, matrix: np.ndarray) -> Tensor:
        """The affine map of pixel values as one of normalized values, (3, H, W) -> (3, H, W), kept
        within what pixels can be.
        """
        linear, offset = matrix[self.order, :3][:, self.order], matrix[self.order, 3]
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
