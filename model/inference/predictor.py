"""Predictor: uint8 images in, class scores or class maps out; from a network, or from a
checkpoint.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.inference.fold_batch_norm import for_inference
from model.inference.tta import TTAView, mean_probabilities
from model.loading import load_network
from model.preprocessing import InputNormalization


class Predictor:
    """Class maps of uint8 RGB images.

    ``network`` offers ``low_resolution``; it is put into evaluation mode for every prediction, and
    back. Its weights may be in half precision. ``autocast()`` opens its precision; by default there
    is none. ``views``: test-time augmentation, averaged.
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
        """Scores of each class at every pixel: (N, H, W, 3) uint8 -> (N, C, H, W) float32 on the
        device.

        Logits; with ``views`` the mean of the probabilities.
        """
        training = self.network.training
        self.network.eval()
        dtype = next(self.network.parameters()).dtype
        x = self.normalize(images.to(self.device, non_blocking=True)).to(dtype)  # (N, 3, H, W)
        if self.views:
            scores = mean_probabilities(self.network, x, self.views, self.autocast)
        else:
            with self.autocast():
                logits = self.network.low_resolution(x).logits
            # In float32: interpolated in half precision, neighboring classes would tie.
            scores = F.interpolate(
                logits.float(), size=x.shape[-2:], mode="bilinear", align_corners=False
            )
        self.network.train(training)
        return scores

    def __call__(self, images: Tensor) -> Tensor:
        """Class maps: (N, H, W, 3) uint8 RGB -> (N, H, W) uint8 trainIds on the device."""
        # max() is several times faster than argmax() on a CPU. Softmax would not change the order.
        return self.class_scores(images).max(1).indices.to(torch.uint8)


def load_predictor(
    checkpoint: dict[str, Any],
    num_classes: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    views: tuple[TTAView, ...] = (),
) -> Predictor:
    """The predictor of a checkpoint's content: BatchNorm folded, weights in ``dtype``.

    Raises ValueError for a checkpoint with another number of classes.
    """
    network, normalize = load_network(checkpoint, num_classes)
    return Predictor(for_inference(network, device, dtype), normalize, device, views=views)
