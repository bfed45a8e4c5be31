"""Building the segmentation network of a run from its options."""

from collections.abc import Sequence
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
    class_names: Sequence[str] | None = None,
) -> BiSeNet:
    """The network in training mode on ``device``, channels_last.

    ``initial``: content of a checkpoint with initial weights (--init); what does not fit is printed
    and stays at random. Backbone weights are not read where ``initial`` or a resumed run brings
    them. ``class_names``: the run's classes, which initial classifiers must be of; None: only their
    number counts. Raises what BiSeNet and ``load_initial_weights`` raise.
    """
    brings_backbone = is_resumed or initial is not None or options.backbone_weights == "none"
    weights = None if brings_backbone else options.backbone_weights
    model = BiSeNet(num_classes, options.backbone, weights, options.fusion_channels)
    if initial is not None:
        for note in load_initial_weights(model, initial, options.input, class_names):
            print(note, flush=True)
    model = model.to(device, memory_format=torch.channels_last).train()
    return with_batch_norm(model, options.bn, device)
