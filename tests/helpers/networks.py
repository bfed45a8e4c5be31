"""Checkpoints for tests: networks that were never trained, but whose BatchNorms have seen something
and whose answers vary.
"""

import copy
import functools
from pathlib import Path

import torch
import torchvision

from model.bisenet import BiSeNet
from model.preprocessing import INPUT_CONVENTIONS
from utils.training.checkpoint import save_checkpoint


def trained_like_network(seed: int = 0, num_classes: int = 19) -> BiSeNet:
    """A ResNet-18 network in evaluation mode with BatchNorm statistics unlike (0, 1), whose
    predictions are of several classes.
    """
    backbone = torchvision.models.resnet18  # the real one, or the narrow one
    return copy.deepcopy(_trained_like_network(seed, num_classes, backbone))


@functools.cache
def _trained_like_network(seed: int, num_classes: int, _backbone: object) -> BiSeNet:
    torch.manual_seed(seed)
    model = BiSeNet(num_classes).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.7, 1.3)
            module.bias.data.uniform_(-0.2, 0.2)
            module.momentum = None  # the mean over all batches, which few are enough for
    with torch.no_grad():
        for _ in range(3):  # running statistics of the activations, as after a training
            model(torch.randn(2, 3, 64, 96) + torch.randn(2, 3, 1, 1), with_aux=False)
        # Every class its share of the pixels, or one would win everywhere.
        logits = model.eval().low_resolution(torch.randn(2, 3, 64, 96)).logits
        deviation, mean = torch.std_mean(logits, (0, 2, 3))
        model.head.weight /= deviation[:, None, None, None]
        model.head.bias.copy_((model.head.bias - mean) / deviation)
    return model


def write_checkpoint(
    path: Path,
    name: str = "net",
    seed: int = 0,
    num_classes: int = 19,
    network: BiSeNet | None = None,
    **metadata,
) -> Path:
    """``network``: by default that of ``trained_like_network``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    model = network or trained_like_network(seed, num_classes)
    default = {
        "architecture": model.architecture,
        "input": INPUT_CONVENTIONS["imagenet"].as_dict(),
        "settings": {},
        "seen_images": [],
        "step": 7,
    }
    save_checkpoint(path, {"model": model}, name=name, **default | metadata)
    return path
