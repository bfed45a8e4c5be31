"""A trained network made ready to be used: BatchNorm folded into the convolutions before it, one
precision throughout.
"""

import copy
import itertools

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """A copy of ``network`` in evaluation mode, the same function, whose BatchNorms have become
    part of the convolutions before them.

    In evaluation BatchNorm is an affine map per channel, y = (x - mean) / sqrt(var + eps) * weight
    + bias, and so is what a convolution's weight and bias do: multiplying them out leaves nothing
    to compute. Exact up to the rounding of float32. A BatchNorm belongs to a convolution where it
    is the next member of the same module, as everywhere in BiSeNet and ResNet; others stay.
    """
    network = copy.deepcopy(network).eval()
    for module in list(network.modules()):
        members = list(module.named_children())
        for (name, conv), (bn_name, bn) in itertools.pairwise(members):
            if isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv, bn))
                setattr(module, bn_name, nn.Identity())
    return network


def for_inference(
    network: nn.Module, device: torch.device, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """A folded copy of ``network`` on ``device``, its weights in ``dtype`` and laid out
    channels_last, the layout images already have.

    Converting the weights once is faster than autocast, which converts them in every pass. The
    network's input must be ``dtype`` too.
    """
    return (
        fold_batch_norms(network)
        .to(device=device, dtype=dtype)
        .to(memory_format=torch.channels_last)
        .requires_grad_(False)
    )
