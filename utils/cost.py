"""What a network costs: parameters, and multiply-accumulates as ptflops counts them."""

import copy
import math
import warnings

import torch
from torch import nn


def parameters(network: nn.Module) -> int:
    """Number of learned values."""
    return sum(parameter.numel() for parameter in network.parameters())


def ptflops_macs(network: nn.Module, input_shape: tuple[int, int, int]) -> float:
    """Multiply-accumulates of one pass over one input of (channels, height, width), counted by ptflops, its Table II manner.

    The network is left in evaluation mode. NaN, with a warning, where ptflops is not installed.
    """
    try:
        from ptflops import get_model_complexity_info
    except ModuleNotFoundError:
        warnings.warn("ptflops is not installed: MACs are not counted. Install it with: pip install ptflops", stacklevel=2)
        return math.nan
    with torch.no_grad():
        macs, _ = get_model_complexity_info(
            network.eval(), input_shape, as_strings=False, print_per_layer_stat=False, backend="pytorch", verbose=False
        )
    return macs


def convolution_macs(network: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of the convolutions alone, in closed form: kernel area x channels in / groups x values out, summed.

    One pass over one input of (channels, height, width) in evaluation mode, traced without computing anything.
    """
    traced = copy.deepcopy(network).to("meta").eval()
    total = 0

    def count(conv: nn.Conv2d, _inputs: tuple, output: torch.Tensor) -> None:
        nonlocal total
        total += math.prod(conv.kernel_size) * conv.in_channels // conv.groups * output.numel()

    for module in traced.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        traced(torch.empty(1, *input_shape, device="meta"))
    return total
