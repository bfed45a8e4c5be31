"""Adaptation methods and batches for tests, without a training script."""

import contextlib
from pathlib import Path

import torch

from dataset.style.photometric import RANDOM_CHANGES
from model.preprocessing import INPUT_CONVENTIONS
from model.training_step import Batch, StepContext
from model.uda.base import Method, MethodSetting, RunSettings, find_methods
from tests.helpers.networks import trained_like_network

PLAIN = StepContext(contextlib.nullcontext, torch.amp.GradScaler("cpu", enabled=False))

RUN = RunSettings(
    batch_size=4,
    target_batch_size=4,
    crop_size=(128, 256),
    target_view="crops",
    bn="local",
    pixel_weights="none",
)


def build_method(
    name: str, model, context: StepContext = PLAIN, collapse_monitor=None, **options
) -> Method:
    """The method of that name for ``model``, with its default options but those given.

    Distillation has a teacher whose answers vary, which sees crops, in the precision of the model.
    """
    method = find_methods()[name]
    if name == "distil":
        options = {"teachers": (Path("teacher.pt"),), "teacher_context": "crop"} | options
    setting = MethodSetting(
        context,
        19,
        INPUT_CONVENTIONS["imagenet"],
        random_changes=RANDOM_CHANGES,
        collapse_monitor=collapse_monitor,
        read_checkpoint=lambda _path: as_checkpoint(trained_like_network(1)),
    )
    built = method(model, method.Options(**options), setting)
    if name == "distil":
        built.teachers.to(next(model.parameters()).dtype)
    return built


def as_checkpoint(network: torch.nn.Module, input_name: str = "imagenet") -> dict:
    """What a file of that network holds, for methods that learn from one."""
    return {
        "name": "teacher",
        "architecture": network.architecture,
        "input": INPUT_CONVENTIONS[input_name].as_dict(),
        "parts": {"model": network.state_dict()},
        "seen_images": ["a"],
    }


def make_batch(image, label=None, valid_pixels=None) -> Batch:
    """A batch on the CPU; images (N, 3, H, W), label (N, H, W) or None."""
    return Batch(image, label, label, list(range(len(image))), valid_pixels)


def gradients(network) -> torch.Tensor:
    """All gradients of a network, one after the other."""
    found = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
    return torch.cat(found)
