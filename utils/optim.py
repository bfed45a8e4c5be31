"""The learning rate as a pure function of the step: nothing to save, nothing to restore."""

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
