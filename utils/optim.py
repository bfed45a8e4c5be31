"""The learning rate as a pure function of the step: nothing to save, nothing to restore. And the size of a gradient."""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def poly_decay(step: int, horizon: int, power: float = 0.9, per: int = 1) -> float:
    """(1 - step / horizon) ** power, and 0 from the horizon on. ``per``: the factor changes every so many steps (1: each)."""
    step = step // per * per
    return max(0.0, 1.0 - step / horizon) ** power


def scale_learning_rate(optimizer: Optimizer, factor: float) -> None:
    """Sets every parameter group to ``factor`` times the rate it began with."""
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
        group["lr"] = group["initial_lr"] * factor


def gradient_norm(network: nn.Module) -> Tensor:
    """The Euclidean norm of the network's whole gradient, a scalar on its device."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
