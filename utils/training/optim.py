"""Optimizer steps and the learning rate, a pure function of the step: no scheduler state."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def poly_decay(step: int, horizon: int, power: float = 0.9, per: int = 1) -> float:
    """(1 - step / horizon) ** power, and 0 from the horizon on.

    ``per``: the number of steps between changes of the factor.
    """
    step = step // per * per
    return max(0.0, 1.0 - step / horizon) ** power


def set_learning_rate(optimizers: Iterable[Optimizer], factor: float) -> None:
    """Sets every parameter group to ``factor`` times its initial learning rate."""
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group.setdefault("initial_lr", group["lr"])
        group["lr"] = group["initial_lr"] * factor


def zero_gradients(optimizers: Iterable[Optimizer]) -> None:
    """Removes the gradients of the step before."""
    for optimizer in optimizers:
        optimizer.zero_grad()


def update(optimizers: Iterable[Optimizer], scaler: torch.amp.GradScaler) -> None:
    """Steps every optimizer; the one scaler skips those whose gradients overflowed."""
    for optimizer in optimizers:
        scaler.step(optimizer)
    scaler.update()


def warm_up(step: int, steps: int) -> float:
    """A factor that rises linearly to 1 during the first ``steps`` steps."""
    return min(1.0, (step + 1) / (steps + 1))


def sgd(
    model: nn.Module, lr: float, momentum: float, weight_decay: float, head_lr_mult: float = 1.0
) -> torch.optim.SGD:
    """SGD; layers outside the backbone have the learning rate ``lr * head_lr_mult``."""
    backbone, head = [], []
    for name, parameter in model.named_parameters():
        (backbone if ".backbone." in name else head).append(parameter)
    groups = model.parameters()
    if head_lr_mult != 1:
        groups = [{"params": backbone}, {"params": head, "lr": lr * head_lr_mult}]
    return torch.optim.SGD(groups, lr, momentum=momentum, weight_decay=weight_decay)


def gradient_norm(network: nn.Module) -> Tensor:
    """The Euclidean norm of the network's whole gradient, a scalar on its device."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return torch.linalg.vector_norm(
        torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients])
    )
