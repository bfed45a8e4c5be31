"""Builds a network from a checkpoint, which records its architecture and input convention."""

from typing import Any

from torch import Tensor

from model.bisenet import BiSeNet
from model.preprocessing import InputNormalization


def load_network(
    checkpoint: dict[str, Any], num_classes: int | None = None
) -> tuple[BiSeNet, InputNormalization]:
    """Returns the network for inference (evaluation mode, CPU) and its input normalization.

    For a run with an EMA teacher this is the teacher. Raises ValueError if the checkpoint has
    another number of classes than ``num_classes``.
    """
    architecture = checkpoint["architecture"]
    if num_classes is not None and architecture["num_classes"] != num_classes:
        raise ValueError(
            f"The checkpoint {checkpoint['name']!r} has {architecture['num_classes']} classes;"
            f" {num_classes} are expected here."
        )
    model = BiSeNet(**architecture)
    model.load_state_dict(_inference_state(checkpoint))
    return model.eval(), InputNormalization.from_dict(checkpoint["input"])


def load_initial_weights(model: BiSeNet, checkpoint: dict[str, Any]) -> None:
    """Copies the weights of a checkpoint into ``model``; ValueError for another architecture."""
    if checkpoint["architecture"] != model.architecture:
        raise ValueError(
            f"--init: the checkpoint {checkpoint['name']!r} is {checkpoint['architecture']}, this"
            f" run is {model.architecture}. Choose the same --backbone, or another checkpoint."
        )
    model.load_state_dict(_inference_state(checkpoint))


def _inference_state(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """State dict of the network for inference: the trained model, or its EMA teacher."""
    return checkpoint["parts"][checkpoint.get("inference_network", "model")]
