"""The reference implementation (scripts/baselines.py) with our weights; gradient vectors."""

import torch
from torch import Tensor, nn

from scripts import baselines
from scripts.check_gpu.ours import NUM_CLASSES

BASELINE_NAMES = {
    "spatial_path.": "spatial.",
    "context_path.backbone.": "resnet.",
    "context_path.arm": "attention",
    "fusion.fuse.": "fuse.",
    "fusion.conv": "fuse",
}
"""Beginnings of our parameter names, and what the reference implementation calls them."""


def baseline_name(name: str) -> str:
    """The reference implementation's name of one of our parameters."""
    prefix = next((prefix for prefix in BASELINE_NAMES if name.startswith(prefix)), "")
    return BASELINE_NAMES.get(prefix, "") + name.removeprefix(prefix)


def baseline_network(model: nn.Module) -> baselines.BaselineBiSeNet:
    """The reference network with the weights of ``model``, a BiSeNet, in training mode."""
    baseline = baselines.BaselineBiSeNet(NUM_CLASSES, model.architecture["backbone"])
    state = {baseline_name(name): value for name, value in model.state_dict().items()}
    state |= {
        name: value
        for name, value in baseline.state_dict().items()
        if name.startswith("resnet.fc.")
    }  # unused
    baseline.load_state_dict(state)
    return baseline.train()


def baseline_discriminator(discriminator: nn.Module) -> nn.Module:
    """The reference light discriminator with the weights of ours, on the CPU."""
    baseline = baselines.baseline_discriminator(NUM_CLASSES)
    values = discriminator.state_dict().values()
    baseline.load_state_dict(dict(zip(baseline.state_dict(), values, strict=True)))
    return baseline


def gradient_of(network: nn.Module, like: nn.Module | None = None) -> Tensor:
    """All gradients of ``network`` as one float64 vector on the CPU.

    With ``like``, one of our networks, ``network`` is the reference implementation and the order is
    that of ``like``.
    """
    named = dict(network.named_parameters())
    names = named if like is None else map(baseline_name, dict(like.named_parameters()))
    gradients = [named[name].grad for name in names if named[name].grad is not None]
    return torch.cat([gradient.double().cpu().flatten() for gradient in gradients])


def relative_error(found: Tensor, expected: Tensor) -> float:
    """||found - expected|| / ||expected||."""
    return float((found - expected).norm() / expected.norm())
