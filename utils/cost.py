"""What a network costs: parameters, and multiply-accumulates as ptflops counts them."""

import torch
from ptflops import get_model_complexity_info
from torch import nn


def parameters(network: nn.Module) -> int:
    """Number of learned values."""
    return sum(parameter.numel() for parameter in network.parameters())


def ptflops_macs(network: nn.Module, input_shape: tuple[int, int, int]) -> float:
    """Multiply-accumulates of one pass over one input of (channels, height, width), counted by ptflops, its Table II manner.

    The network is left in evaluation mode.
    """
    with torch.no_grad():
        macs, _ = get_model_complexity_info(
            network.eval(), input_shape, as_strings=False, print_per_layer_stat=False, backend="pytorch", verbose=False
        )
    return macs
