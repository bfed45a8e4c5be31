"""Predicts class scores and class maps of uint8 images, with a network or a checkpoint."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.fused_upsampling import class_map, resize, upsampled_classes
from model.inference.fold_batch_norm import for_inference
from model.inference.tiling import with_border
from model.inference.tta import MIN_SIZE, TTAView, mean_probabilities
from model.loading import load_network
from model.preprocessing import InputNormalization


class Predictor:
    """Predicts class maps of uint8 RGB images of any size.

    Images below the smallest size of the network get a border, which is cut off the result.

    Args:
        network: offers ``low_resolution``; set to evaluation mode during each prediction. Its
            weights may be in half precision.
        normalize: the input normalization of the network.
        device: where the network is.
        autocast: returns the context in which the network computes; default: no autocast.
        views: test-time augmentation, whose probabilities are averaged.
    """

    def __init__(
        self,
        network: nn.Module,
        normalize: InputNormalization,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager] | None = None,
        views: tuple[TTAView, ...] = (),
    ):
        self.network, self.normalize, self.device, self.views = network, normalize, device, views
        self.autocast = autocast or partial(torch.autocast, device.type, enabled=False)

    @torch.inference_mode()
    def class_scores(self, images: Tensor) -> Tensor:
        """Logits, or mean probabilities of the ``views``: (N, H, W, 3) uint8 -> (N, C, H, W).

        The result is float32, on the device.
        """
        height, width = images.shape[1:3]
        if not self.views:
            logits, size = self._logits(images)
            return resize(logits, size)[..., :height, :width]
        x = self.input(images)
        with self._evaluation_mode():
            probabilities = mean_probabilities(self.network, x, self.views, self.autocast)
        return probabilities[..., :height, :width]

    def input(self, images: Tensor) -> Tensor:
        """The input of the network: (N, H, W, 3) uint8 -> (N, 3, H, W), on the device.

        Small images have a border: H and W are at least MIN_SIZE.
        """
        dtype = next(self.network.parameters()).dtype
        images = with_border(images, MIN_SIZE).to(self.device, non_blocking=True)
        return self.normalize(images).to(dtype)

    def _logits(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Logits before the last upsampling, (N, C, h, w), and the size of the input.

        They are in float32: interpolation in half precision would make classes tie.
        """
        x = self.input(images)  # (N, 3, H, W)
        with self._evaluation_mode(), self.autocast():
            logits = self.network.low_resolution(x).logits
        return logits.float(), tuple(x.shape[-2:])

    @contextmanager
    def _evaluation_mode(self) -> Iterator[None]:
        training = self.network.training
        self.network.eval()
        yield
        self.network.train(training)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Predicts class maps: (N, H, W, 3) uint8 RGB -> (N, H, W) uint8 trainIds on the device."""
        if self.views:
            return class_map(self.class_scores(images))
        logits, size = self._logits(images)
        height, width = images.shape[1:3]
        return upsampled_classes(logits, size)[:, :height, :width]

    def segment(self, image: np.ndarray) -> np.ndarray:
        """Predicts the class map of one image: (H, W, 3) uint8 RGB -> (H, W) uint8 trainIds."""
        # A copy, since torch warns of arrays that are read-only.
        return self(torch.from_numpy(np.array(image))[None])[0].cpu().numpy()


def load_predictor(
    checkpoint: dict[str, Any],
    num_classes: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    views: tuple[TTAView, ...] = (),
) -> Predictor:
    """Builds the predictor of a checkpoint: BatchNorm folded, weights in ``dtype``.

    ``checkpoint``: content, as read_checkpoint returns it. Raises ValueError if it has another
    number of classes than ``num_classes``.
    """
    network, normalize = load_network(checkpoint, num_classes)
    return Predictor(for_inference(network, device, dtype), normalize, device, views=views)
