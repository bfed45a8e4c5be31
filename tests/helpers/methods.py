"""Adaptation methods and batches for tests, without a training script."""

import contextlib

import torch

from dataset.style.photometric import RANDOM_CHANGES
from model.preprocessing import INPUT_CONVENTIONS
from model.training_step import Batch, StepContext
from model.uda.base import Method, MethodSetting, find_methods

PLAIN = StepContext(contextlib.nullcontext, torch.amp.GradScaler("cpu", enabled=False))


def build_method(
    name: str, model, context: StepContext = PLAIN, collapse_monitor=None, **options
) -> Method:
    """The method of that name for ``model``, with its default options but those given."""
    method = find_methods()[name]
    setting = MethodSetting(
        context,
        19,
        INPUT_CONVENTIONS["imagenet"],
        random_changes=RANDOM_CHANGES,
        collapse_monitor=collapse_monitor,
    )
    return method(model, method.Options(**options), setting)


def make_batch(image, label=None, valid_pixels=None) -> Batch:
    """A batch on the CPU; images (N, 3, H, W), label (N, H, W) or None."""
    return Batch(image, label, label, list(range(len(image))), valid_pixels)


def gradients(network) -> torch.Tensor:
    """All gradients of a network, one after the other."""
    found = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
    return torch.cat(found)
