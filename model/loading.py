"""Builds a network from a checkpoint, which records its architecture and input convention."""

from typing import Any

from torch import Tensor

from model.bisenet import BiSeNet
from model.preprocessing import INPUT_CONVENTIONS, InputNormalization


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


def load_initial_weights(model: BiSeNet, checkpoint: dict[str, Any], input_name: str) -> None:
    """Copies the weights of a checkpoint into ``model``.

    ``input_name``: a key of INPUT_CONVENTIONS, the input of ``model``. Raises ValueError for
    another architecture or another input.
    """
    name, found, wanted = checkpoint["name"], checkpoint["architecture"], model.architecture
    if found != wanted:
        keys = sorted(key for key in found | wanted if found.get(key) != wanted.get(key))
        flags = ", ".join(f"--{key.replace('_', '-')} {found.get(key, 'left out')}" for key in keys)
        raise ValueError(
            f"--init: the checkpoint {name!r} is {found}, this run is {wanted}. Choose the same"
            f" {flags}, or another checkpoint."
        )
    if checkpoint["input"] != INPUT_CONVENTIONS[input_name].as_dict():
        before = next(
            (
                key
                for key, convention in INPUT_CONVENTIONS.items()
                if convention.as_dict() == checkpoint["input"]
            ),
            checkpoint["input"],
        )
        raise ValueError(
            f"--init: the checkpoint {name!r} was trained with --input {before}, this run has"
            f" --input {input_name}: the weights would see inputs of other values. Add --input"
            f" {before}, or choose another checkpoint."
        )
    model.load_state_dict(_inference_state(checkpoint))


def _inference_state(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """State dict of the network for inference: the trained model, or its EMA teacher."""
    return checkpoint["parts"][checkpoint.get("inference_network", "model")]
