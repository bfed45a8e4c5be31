"""What the network's input is: how uint8 RGB images become its floats. Runs on the device; a
checkpoint records it.
"""

import functools
from dataclasses import asdict, dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class InputNormalization:
    """(x - mean) / std per channel, in units of 0-255, in ``channel_order``."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channel_order: str = "rgb"

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 RGB images (N, H, W, 3) -> float32 (N, 3, H, W) in channels_last layout, which is
        the layout they already have.
        """
        x = images.permute(0, 3, 1, 2)  # (N, 3, H, W), a view
        if self.channel_order == "bgr":
            x = x.flip(1)
        mean, std = _constants(self, x.device)
        return ((x.float() - mean) / std).contiguous(memory_format=torch.channels_last)

    def padding(self, color: str) -> tuple[int, int, int]:
        """The RGB value that pads images: "mean", which the network sees as about 0, or "zero",
        black.
        """
        if color == "zero":
            return (0, 0, 0)
        mean = self.mean if self.channel_order == "rgb" else self.mean[::-1]
        return tuple(round(value) for value in mean)

    def as_dict(self) -> dict:
        """Plain values, for a checkpoint; ``from_dict`` restores it."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict) -> "InputNormalization":
        """What ``as_dict`` gave, restored."""
        return cls(tuple(values["mean"]), tuple(values["std"]), values["channel_order"])


@functools.lru_cache
def _constants(normalization: InputNormalization, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and std as (3, 1, 1) tensors, made once per device: a copy from the host in every step
    would make a GPU wait.
    """
    mean, std = (
        torch.tensor(values, device=device).view(3, 1, 1)
        for values in (normalization.mean, normalization.std)
    )
    return mean, std


INPUT_CONVENTIONS = {
    "imagenet": InputNormalization(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
    # The conventions of the authors' published code: of its step 2, and of its steps 3 and 4.
    "step2": InputNormalization(mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0)),
    "step34": InputNormalization(
        mean=(73.16, 82.91, 72.39), std=(1.0, 1.0, 1.0), channel_order="bgr"
    ),
}
