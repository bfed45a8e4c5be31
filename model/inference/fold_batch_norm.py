"""Prepares a trained network for inference: BatchNorm folded into convolutions, one precision."""

import copy
import itertools

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Copies ``network`` in evaluation mode with its BatchNorm layers folded into convolutions.

    In evaluation BatchNorm is an affine map of each channel, y = (x - mean) / sqrt(var + eps) *
    weight + bias, which is multiplied into weight and bias of the convolution before it. The output
    is equal up to float32 rounding. A BatchNorm is folded if it directly follows a convolution in
    the same module, as everywhere in BiSeNet and ResNet; others stay.
    """
    network = copy.deepcopy(network).eval()
    for module in list(network.modules()):
        children = list(module.named_children())
        for (name, conv), (bn_name, bn) in itertools.pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv, bn))
                setattr(module, bn_name, nn.Identity())
    return network


def for_inference(
    network: nn.Module, device: torch.device, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """Copies ``network`` to ``device`` for inference: folded, in ``dtype``, channels_last, frozen.

    Converting the weights once is faster than autocast, which converts them in every pass. The
    input of the network must have the same ``dtype``.
    """
    folded = fold_batch_norms(network).to(device=device, dtype=dtype)
    return folded.to(memory_format=torch.channels_last).requires_grad_(False)
