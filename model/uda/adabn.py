"""AdaBN (Li et al., 2016): BatchNorm statistics measured anew on images of the target."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from model.preprocessing import InputNormalization


class _Population:
    """Mean and variance of each channel over all inputs that a BatchNorm was given, merged batch by
    batch (Chan et al., 1979) in float64.
    """

    def __init__(self):
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor]) -> None:
        """A forward pre-hook: inputs[0] is (N, C, ...)."""
        x = inputs[0].detach().float().transpose(0, 1).flatten(1)  # (C, n)
        variance, mean = (moment.double() for moment in torch.var_mean(x, dim=1, correction=0))
        count, delta = x.shape[1], mean - self.mean
        total = self.count + count
        self.squares = self.squares + variance * count + delta**2 * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total

    def variance(self) -> Tensor:
        """Unbiased, as BatchNorm keeps it."""
        return self.squares / (self.count - 1)


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """AdaBN (Li et al., 2016): the running statistics of all BatchNorms become those of
    ``batches``; weights stay. Returns the images seen.

    ``batches``: normalized images (N, 3, H, W), on the model's device, in any sizes. Each passes
    through the network as in training, every BatchNorm normalizing it with its own statistics, and
    the statistics of all batches are pooled: those of the first BatchNorm are exactly the mean and
    the unbiased variance over all pixels of all images. The network keeps its mode, also with
    BatchNorm frozen. Raises ValueError without a batch or a BatchNorm, FloatingPointError for
    statistics that are not finite; nothing is changed then.
    """
    norms = [
        module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]
    if not norms:
        raise ValueError("The network has no BatchNorm: there is nothing to recalibrate.")
    populations = [_Population() for _ in norms]
    modes = {module: module.training for module in model.modules()}
    hooks = [
        norm.register_forward_pre_hook(population)
        for norm, population in zip(norms, populations, strict=True)
    ]

    # Every BatchNorm passes its inputs to its population; nothing of the model changes.
    images = 0
    try:
        model.eval()  # all but the BatchNorms behaves as in use
        for norm in norms:  # each uses the statistics of its input; the running ones do not move
            norm.training, norm.track_running_stats = True, False
        forward = getattr(model, "low_resolution", model)  # no BatchNorm comes after it
        for batch in batches:
            forward(batch)
            images += len(batch)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
        for norm in norms:
            norm.track_running_stats = True

    # The populations become the running statistics, all of them or none.
    if not images:
        raise ValueError("No batch of images to recalibrate on.")
    statistics = [(population.mean, population.variance()) for population in populations]
    if not all(value.isfinite().all() for pair in statistics for value in pair):
        raise FloatingPointError(
            "The statistics of the new images are not finite. Recalibrate with --precision fp32."
        )
    for norm, (mean, variance) in zip(norms, statistics, strict=True):
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
    return images


def recalibrate_on(
    model: nn.Module,
    normalize: InputNormalization,
    images: Iterable[Tensor],
    autocast: Callable[[], AbstractContextManager],
) -> None:
    """``recalibrate`` on uint8 images (N, H, W, 3), normalized and computed as in use."""
    device = next(model.parameters()).device
    with autocast():
        recalibrate(model, (normalize(batch.to(device, non_blocking=True)) for batch in images))
