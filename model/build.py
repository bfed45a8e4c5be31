"""Building the segmentation network of a run from its options."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from model.batch_norm import with_batch_norm
from model.bisenet import BiSeNet
from model.loading import load_initial_weights

PUBLISHED_CLASSES, FEWEST_CHANNELS = 19, 64


@dataclass(frozen=True)
class NetworkOptions:
    """Flags: the network and where its weights come from (utils.options.groups)."""

    backbone: str
    backbone_weights: str
    fusion_channels: int | None
    bn: str
    input: str


def default_fusion_channels(num_classes: int) -> int | None:
    """Width of the feature fusion where --fusion-channels does not say it; None: as published.

    The published width is the number of classes, 19. Two or five channels would be a bottleneck
    between 1,024 channels of features and the classes, so other class sets get 64 at least: 29.0
    instead of 25.6 GMac at 512x1024 (BiSeNet-18). The authors of BiSeNet have 256.
    """
    return None if num_classes == PUBLISHED_CLASSES else max(num_classes, FEWEST_CHANNELS)


def build_network(
    options: NetworkOptions,
    class_names: Sequence[str],
    device: torch.device,
    initial: dict[str, Any] | None = None,
    is_resumed: bool = False,
) -> BiSeNet:
    """The network in training mode on ``device``, channels_last.

    ``initial``: content of a checkpoint with initial weights (--init); what does not fit is printed
    and stays at random. Backbone weights are not read where ``initial`` or a resumed run brings
    them. ``class_names``: the run's classes, which initial classifiers must be of. Raises what
    BiSeNet and ``load_initial_weights`` raise.
    """
    brings_backbone = is_resumed or initial is not None or options.backbone_weights == "none"
    weights = None if brings_backbone else options.backbone_weights
    fusion_channels = options.fusion_channels or default_fusion_channels(len(class_names))
    model = BiSeNet(len(class_names), options.backbone, weights, fusion_channels)
    if initial is not None:
        for note in load_initial_weights(model, initial, options.input, class_names):
            print(note, flush=True)
    model = model.to(device, memory_format=torch.channels_last).train()
    return with_batch_norm(model, options.bn, device)
