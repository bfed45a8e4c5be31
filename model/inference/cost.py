"""Cost of a network: parameters and multiply-accumulate operations (MACs)."""

import copy
import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from model.bisenet import BiSeNet
from model.discriminator import build_discriminator

TABLE_2_SIZE = (512, 1024)
"""Input (height, width) that Table II counts MACs for."""


def count_parameters(network: nn.Module) -> int:
    """Number of learned parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def ptflops_macs(network: nn.Module, input_shape: tuple[int, int, int]) -> float:
    """MACs of one forward pass, counted by ptflops (as in Table II).

    ``input_shape``: (channels, height, width), batch size 1. Leaves the network in evaluation mode.
    NaN, with a warning, where ptflops is not installed.
    """
    try:
        from ptflops import get_model_complexity_info
    except ModuleNotFoundError:
        message = "ptflops is not installed: MACs are not counted. Install it: pip install ptflops"
        warnings.warn(message, stacklevel=2)
        return math.nan
    with torch.no_grad():
        macs, _ = get_model_complexity_info(
            network.eval(),
            input_shape,
            as_strings=False,
            print_per_layer_stat=False,
            backend="pytorch",
            verbose=False,
        )
    return macs


def convolution_macs(network: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """MACs of the convolutions in one forward pass, in closed form.

    Kernel area x input channels / groups x output values, summed over all convolutions.
    ``input_shape``: (channels, height, width), batch size 1. Shapes are traced on the meta device:
    nothing is computed.
    """
    shapes_only = copy.deepcopy(network).to("meta").eval()
    total = 0

    def count(conv: nn.Conv2d, _inputs: tuple, output: torch.Tensor) -> None:
        nonlocal total
        total += math.prod(conv.kernel_size) * conv.in_channels // conv.groups * output.numel()

    for module in shapes_only.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        shapes_only(torch.empty(1, *input_shape, device="meta"))
    return total


def table_2_costs(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Costs of a checkpoint's deployed network, and of its discriminator if it had one.

    ``metadata``: of the checkpoint, with "architecture" and perhaps "discriminator".
    """
    costs = deployed_costs(metadata["architecture"])
    if "discriminator" in metadata:
        num_classes = metadata["architecture"]["num_classes"]
        costs |= discriminator_costs(metadata["discriminator"], num_classes)
    return costs


def deployed_costs(architecture: dict[str, Any]) -> dict[str, Any]:
    """Parameters and GMACs of the network without the auxiliary heads, which only training uses."""
    model = BiSeNet(**architecture)
    training_only = count_parameters(model.aux16) + count_parameters(model.aux32)
    return {
        "architecture": architecture,
        "model_parameters": count_parameters(model) - training_only,
        "model_gmac": ptflops_macs(model, (3, *TABLE_2_SIZE)) / 1e9,
    }


def discriminator_costs(name: str, num_classes: int) -> dict[str, Any]:
    """Parameters and GMACs of the discriminator ``name``."""
    discriminator = build_discriminator(name, num_classes)
    return {
        "discriminator": name,
        "discriminator_parameters": count_parameters(discriminator),
        "discriminator_gmac": ptflops_macs(discriminator, (num_classes, *TABLE_2_SIZE)) / 1e9,
    }
