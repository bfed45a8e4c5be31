"""Input normalization: uint8 RGB images -> network input; recorded in checkpoints."""

import functools
from dataclasses import asdict, dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class InputNormalization:
    """(x - mean) / std per channel; mean and std in units of 0-255, in ``channel_order``."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channel_order: str = "rgb"

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 RGB images (N, H, W, 3) -> float32 (N, 3, H, W), in channels_last memory format."""
        x = images.permute(0, 3, 1, 2)  # (N, 3, H, W), a view
        if self.channel_order == "bgr":
            x = x.flip(1)
        mean, std = _constants(self, x.device)
        return ((x.float() - mean) / std).contiguous(memory_format=torch.channels_last)

    def padding(self, color: str) -> tuple[int, int, int]:
        """RGB padding value: "mean", which is about 0 after normalization, or "zero" (black)."""
        if color == "zero":
            return (0, 0, 0)
        mean = self.mean if self.channel_order == "rgb" else self.mean[::-1]
        return tuple(round(value) for value in mean)

    def as_dict(self) -> dict:
        """Plain values for a checkpoint; see ``from_dict``."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict) -> "InputNormalization":
        """Inverse of ``as_dict``."""
        return cls(tuple(values["mean"]), tuple(values["std"]), values["channel_order"])


@functools.lru_cache
def _constants(normalization: InputNormalization, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and std as (3, 1, 1) tensors, cached: a copy from the host would make a GPU wait."""
    mean, std = (
        torch.tensor(values, device=device).view(3, 1, 1)
        for values in (normalization.mean, normalization.std)
    )
    return mean, std


INPUT_CONVENTIONS = {
    "imagenet": InputNormalization(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
    # RGB / 255: step 2 of the reference implementation.
    "unit_rgb": InputNormalization(mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0)),
    # BGR minus a mean, as Caffe networks take it: steps 3 and 4 of the reference implementation.
    "caffe_bgr": InputNormalization(
        mean=(73.16, 82.91, 72.39), std=(1.0, 1.0, 1.0), channel_order="bgr"
    ),
}
