"""Building the segmentation network of a run from its options."""

from dataclasses import dataclass
from typing import Any

import torch

from model.batch_norm import with_batch_norm
from model.bisenet import BiSeNet
from model.loading import load_initial_weights


@dataclass(frozen=True)
class NetworkOptions:
    """Flags: the network and where its weights come from (utils.options.groups)."""

    backbone: str
    backbone_weights: str
    fusion_channels: int | None
    bn: str
    input: str


def build_network(
    options: NetworkOptions,
    num_classes: int,
    device: torch.device,
    initial: dict[str, Any] | None = None,
    is_resumed: bool = False,
) -> BiSeNet:
    """The network in training mode on ``device``, channels_last.

    ``initial``: content of a checkpoint with initial weights (--init). Backbone weights are not
    read where ``initial`` or a resumed run brings all weights. Raises what BiSeNet and
    ``load_initial_weights`` raise.
    """
    brings_all = is_resumed or initial is not None or options.backbone_weights == "none"
    weights = None if brings_all else options.backbone_weights
    model = BiSeNet(num_classes, options.backbone, weights, options.fusion_channels)
    if initial is not None:
        load_initial_weights(model, initial, options.input)
    model = model.to(device, memory_format=torch.channels_last).train()
    return with_batch_norm(model, options.bn, device)
