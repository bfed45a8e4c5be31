"""Fully convolutional discriminators of segmentation outputs (Tsai et al., CVPR 2018; Fig. 3)."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from model.fused_upsampling import resize


def full_conv(channels_in: int, channels_out: int) -> nn.Module:
    """4x4 convolution, stride 2, with bias."""
    return nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1)


class LightConv(nn.Sequential):
    """Depthwise separable: 4x4 depthwise of stride 2, then 1x1 pointwise, both with bias.

    On a CPU the depthwise convolution stays in float32 under autocast: its backward pass is several
    times slower in bf16.
    """

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__(
            nn.Conv2d(channels_in, channels_in, 4, stride=2, padding=1, groups=channels_in),
            nn.Conv2d(channels_in, channels_out, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        depthwise, pointwise = self
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                x = depthwise(x.float())
        else:
            x = depthwise(x)
        return pointwise(x)


CONVS: dict[str, Callable[[int, int], nn.Module]] = {"full": full_conv, "light": LightConv}


class Discriminator(nn.Module):
    """Class probabilities (N, num_classes, H, W) -> domain logits (N, 1, H, W).

    A positive logit means "source" (z = 1 in Eq. 3). H and W are at least 32. The input is the
    output of a softmax, never logits. There is no sigmoid and no normalization layer.
    """

    def __init__(self, conv: Callable[[int, int], nn.Module], num_classes: int):
        super().__init__()
        widths = (num_classes, 64, 128, 256, 512, 1)
        layers = []
        for channels_in, channels_out in itertools.pairwise(widths):
            layers += [conv(channels_in, channels_out), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, probabilities: Tensor) -> Tensor:
        score = self.layers(probabilities)  # (N, 1, H/32, W/32)
        return resize(score, probabilities.shape[-2:])  # (N, 1, H, W)


def build_discriminator(kind: str, num_classes: int = 19) -> Discriminator:
    """The "full" discriminator (2.78 M parameters, ADA of Table II) or the "light" one (0.19 M).

    Raises ValueError for another kind.
    """
    if kind not in CONVS:
        raise ValueError(f"Unknown discriminator {kind!r}; expected one of {', '.join(CONVS)}.")
    return Discriminator(CONVS[kind], num_classes)
