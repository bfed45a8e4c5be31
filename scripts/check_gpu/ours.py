"""Our methods behind one small door: a training step of a method on a synthetic batch.

Whatever this package needs of the methods' Python interface is in this file; the rest runs our
scripts by their command lines. Sizes are (images, height, width).
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dataset.style.photometric import RANDOM_CHANGES
from model.bisenet import BiSeNet
from model.preprocessing import INPUT_CONVENTIONS
from model.training_step import Batch, StepContext
from model.uda.base import Method, MethodSetting, find_methods
from utils.training.optim import update, zero_gradients
from utils.training.precision import autocast_for, choose_precision, scaler_for

NUM_CLASSES = 19
METHODS = ("light", "full", "minent", "pseudo-labels", "self-training")
"""What `training_step` builds: the two adversarial methods under the names of their discriminators.
"""


class Setup(NamedTuple):
    """What a step computes and where. ``size``: (images of each domain, height, width)."""

    method: str
    size: tuple[int, int, int]
    device: torch.device
    precision: str = "fp32"
    backbone: str = "resnet18"
    memory_format: torch.memory_format = torch.channels_last
    dtype: torch.dtype = torch.float32


class SyntheticBatch(NamedTuple):
    """Noise on the CPU: images (N, 3, H, W) and uint8 trainIds (N, H, W) of both domains."""

    source: Tensor
    label: Tensor
    target: Tensor
    target_label: Tensor


class TrainingStep(NamedTuple):
    """``gradients()`` clears and computes the gradients of one batch and returns its losses
    (detached scalars); ``update()`` lets every optimizer step. ``networks``: those that learn, by
    name, the segmentation network as "model".
    """

    gradients: Callable[[], dict[str, Tensor]]
    update: Callable[[], None]
    networks: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    scaler: torch.amp.GradScaler


def synthetic_batch(size: tuple[int, int, int], seed: int = 0) -> SyntheticBatch:
    """Noise with labels of every class, some pixels ignored; the same for every device."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, size[0], 3, *size[1:], generator=generator)
    # Every image has a color of its own: the attention's BatchNorm compares the images of a batch.
    source, target = noise + 2 * torch.randn(2, size[0], 3, 1, 1, generator=generator)
    label, target_label = torch.randint(
        0, NUM_CLASSES, (2, *size), dtype=torch.uint8, generator=generator
    )
    label[:, : size[1] // 8] = 255
    target_label[:, : size[1] // 4] = 255
    return SyntheticBatch(source, label, target, target_label)


def build_network(backbone: str, seed: int = 0) -> BiSeNet:
    """The segmentation network on the CPU with random weights that depend on the seed alone."""
    torch.manual_seed(seed)
    return BiSeNet(NUM_CLASSES, backbone).train()


def training_step(
    setup: Setup,
    model: nn.Module | None = None,
    seed: int = 0,
    scaler: torch.amp.GradScaler | None = None,
) -> TrainingStep:
    """A step of ``setup.method`` with the paper's optimizers, on the batch of ``seed``.

    ``model``: the network to start from, by default ``build_network``'s. ``scaler``: another than
    the precision's own.
    """
    device = setup.device
    model = build_network(setup.backbone) if model is None else copy.deepcopy(model)
    model = model.to(device, setup.dtype).to(memory_format=setup.memory_format)
    choose_precision(setup.precision, device)  # as our scripts do: it turns TF32 off
    scaler = scaler or scaler_for(device, setup.precision)
    method = _method(setup, model, StepContext(autocast_for(device, setup.precision), scaler))
    source, target = _batches(setup, seed)
    optimizers = {
        "optimizer": torch.optim.SGD(model.parameters(), 5e-4, momentum=0.9, weight_decay=5e-4),
        **method.optimizers,
    }

    def gradients() -> dict[str, Tensor]:
        zero_gradients(optimizers.values())
        return method.step(source, target)

    def step_optimizers() -> None:
        update(optimizers.values(), scaler)
        method.after_step(1000)

    networks = {"model": model, **method.networks}
    return TrainingStep(gradients, step_optimizers, networks, optimizers, scaler)


def _method(setup: Setup, model: nn.Module, context: StepContext) -> Method:
    """The method with the paper's options; its networks in the setup's dtype and layout."""
    is_adversarial = setup.method in ("light", "full")
    method = find_methods()["adversarial" if is_adversarial else setup.method]
    options = {"discriminator": setup.method} if is_adversarial else {}
    if setup.method == "self-training":
        options = {"pseudo_threshold": 0.2}  # untrained networks are never confident
    setting = MethodSetting(
        context,
        NUM_CLASSES,
        INPUT_CONVENTIONS["imagenet"],
        random_changes=RANDOM_CHANGES,
    )
    torch.manual_seed(1)
    built = method(model, method.Options(**options), setting)
    for network in built.networks.values():
        network.to(setup.dtype).to(memory_format=setup.memory_format)
    return built


def _batches(setup: Setup, seed: int) -> tuple[Batch, Batch]:
    batch = synthetic_batch(setup.size, seed)
    # Self-training's target label says only which pixels count.
    target_label = (
        batch.target_label
        if setup.method == "pseudo-labels"
        else torch.zeros_like(batch.target_label)
    )

    def on_device(image: Tensor, label: Tensor, seeds: range) -> Batch:
        image = image.to(setup.device, setup.dtype).contiguous(memory_format=setup.memory_format)
        valid_pixels = int((label != 255).sum())
        return Batch(image, label.to(setup.device), label, list(seeds), valid_pixels)

    images = setup.size[0]
    return (
        on_device(batch.source, batch.label, range(images)),
        on_device(batch.target, target_label, range(images, 2 * images)),
    )
