"""Class probabilities at sampled pixels of an image, under several views, for measures on them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from model.inference.predictor import Predictor
from model.inference.tta import TTAView


@torch.inference_mode()
def sampled_probabilities(
    predictor: Predictor, images: Tensor, points: Tensor, views: Sequence[TTAView]
) -> Tensor:
    """Class probabilities of the same pixels in every view: (V, N * P, C) float32.

    ``images`` (N, H, W, 3) uint8 RGB; ``points`` (P, 2): (x, y) of the pixels, as fractions of
    width and height. One forward pass for each view. Logits are interpolated at the points, which
    equals upsampling them to the image first. The network is set to evaluation mode.
    """
    network = predictor.network.eval()
    (height, width), whole, found = images.shape[1:3], predictor.input(images), []
    size = whole.shape[-2:]
    # Small images have a border: the points are those of the image without it.
    shares = torch.tensor([width / size[1], height / size[0]], device=whole.device)
    points = points.to(whole.device).float() * shares
    grid = (2 * points - 1)[None, None].expand(len(images), -1, -1, -1)  # (N, 1, P, 2), -1 to 1
    for view in views:
        x = view.apply(whole)
        with predictor.autocast():
            logits = network.low_resolution(x, with_aux=False).logits
        mirrored = grid * grid.new_tensor([-1.0, 1.0]) if view.flip else grid
        sampled = F.grid_sample(
            logits.float(), mirrored, padding_mode="border", align_corners=False
        )  # (N, C, 1, P)
        found.append(sampled[:, :, 0].permute(0, 2, 1).flatten(0, 1).softmax(-1))
    return torch.stack(found)
