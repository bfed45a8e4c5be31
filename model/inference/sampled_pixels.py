"""Class probabilities at sampled pixels of an image, under several views, for measures on them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.inference.tta import MIN_SIZE, TTAView
from model.training_step import Autocast


@torch.inference_mode()
def sampled_probabilities(
    network: nn.Module,
    images: Tensor,
    points: Tensor,
    views: Sequence[TTAView],
    autocast: Autocast,
) -> Tensor:
    """Class probabilities of the same pixels in every view: (V, N * P, C) float32.

    ``images`` (N, 3, H, W), normalized; ``points`` (P, 2): (x, y) of the pixels, as fractions of
    width and height. One forward pass for each view. Logits are interpolated at the points, which
    equals upsampling them to the image first. The network is set to evaluation mode.
    """
    network.eval()
    size, found = images.shape[-2:], []
    grid = (2 * points.to(images.device).float() - 1)[None, None]  # (1, 1, P, 2), -1 to 1
    grid = grid.expand(len(images), -1, -1, -1)
    for view in views:
        x = images
        if view.scale != 1:
            view_size = [max(MIN_SIZE, round(side * view.scale)) for side in size]
            x = F.interpolate(images, size=view_size, mode="bilinear")
        with autocast():
            logits = network.low_resolution(x.flip(3) if view.flip else x, with_aux=False).logits
        mirrored = grid * grid.new_tensor([-1.0, 1.0]) if view.flip else grid
        sampled = F.grid_sample(
            logits.float(), mirrored, padding_mode="border", align_corners=False
        )  # (N, C, 1, P)
        found.append(sampled[:, :, 0].permute(0, 2, 1).flatten(0, 1).softmax(-1))
    return torch.stack(found)
