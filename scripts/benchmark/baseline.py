"""Which networks scripts/baselines.py has, to compare ours with."""

from typing import Any

from model.loading import full_architecture

BACKBONES = ("resnet18", "resnet101")


def require_baseline(architecture: dict[str, Any], name: str) -> None:
    """Raises ValueError for a network that scripts/baselines.py does not have; ``name``: its own.

    Its number of classes is free.
    """
    fusion_channels = full_architecture({"architecture": architecture})["fusion_channels"]
    if architecture["backbone"] not in BACKBONES or fusion_channels != architecture["num_classes"]:
        raise ValueError(
            f"{name} is {architecture}; the baseline (scripts/baselines.py) has"
            f" {' and '.join(BACKBONES)} with the published width of the fusion only, and nothing"
            " else can be compared with it. The speed of any checkpoint: python -m"
            f" scripts.benchmark deployment --checkpoint {name}"
        )
