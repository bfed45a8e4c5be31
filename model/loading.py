"""Builds a network from a checkpoint, which records its architecture and input convention."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from model.bisenet import BiSeNet
from model.preprocessing import INPUT_CONVENTIONS, InputNormalization

PARTS = ("spatial_path", "context_path", "fusion", "head", "aux16", "aux32")
"""The parts of BiSeNet that initial weights fit as a whole or not at all."""
CLASSIFIERS = ("head", "aux16", "aux32")
"""The parts with one output for each class."""


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


def full_architecture(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The architecture with the width of the fusion, also where the run had no flag for it."""
    architecture = checkpoint["architecture"]
    return {"fusion_channels": architecture["num_classes"]} | architecture


def load_initial_weights(
    model: BiSeNet,
    checkpoint: dict[str, Any],
    input_name: str,
    class_names: Sequence[str],
) -> list[str]:
    """Copies the weights of a checkpoint into ``model``: every part whose shape and meaning fit.

    Other parts stay as they are; returns one line about each. Classifiers fit only if they are of
    the same classes (``same_classes``). ``input_name``: a key of INPUT_CONVENTIONS, the input of
    ``model``. Raises ValueError for another backbone, of which nothing would remain, or another
    input.
    """
    name, found, wanted = checkpoint["name"], checkpoint["architecture"], model.architecture
    if found["backbone"] != wanted["backbone"]:
        raise ValueError(
            f"--init: the checkpoint {name!r} is {found}, this run is {wanted}: nothing of its"
            f" backbone would remain. Choose the same --backbone {found['backbone']}, or another"
            " checkpoint."
        )
    _require_input(checkpoint, input_name)
    state, expected = _inference_state(checkpoint), model.state_dict()
    is_same = same_classes(checkpoint, class_names)
    taken, notes = {}, []
    for part in PARTS:
        keys = [key for key in expected if key.startswith(f"{part}.")]
        misshapen = [k for k in keys if k not in state or state[k].shape != expected[k].shape]
        if misshapen:
            key = misshapen[0]
            shape = tuple(state[key].shape) if key in state else "absent"
            reason = f"{key} is {shape} there, {tuple(expected[key].shape)} here"
        elif part in CLASSIFIERS and not is_same:
            reason = "its classes are others"
        else:
            taken |= {key: state[key] for key in keys}
            continue
        notes.append(f"--init: {part} stays at random, it does not fit {name!r}: {reason}.")
    model.load_state_dict(taken, strict=False)
    return notes


def same_classes(checkpoint: dict[str, Any], class_names: Sequence[str]) -> bool:
    """Whether a checkpoint's classes are these, in this order.

    By their names; by their number where the checkpoint is older than class sets.
    """
    if "class_set" not in checkpoint:
        return checkpoint["architecture"]["num_classes"] == len(class_names)
    return list(checkpoint["class_set"]["classes"]) == list(class_names)


def _require_input(checkpoint: dict[str, Any], input_name: str) -> None:
    """Raises ValueError where a checkpoint was trained with another input than ``input_name``."""
    if checkpoint["input"] == INPUT_CONVENTIONS[input_name].as_dict():
        return
    before = next(
        (
            key
            for key, convention in INPUT_CONVENTIONS.items()
            if convention.as_dict() == checkpoint["input"]
        ),
        checkpoint["input"],
    )
    raise ValueError(
        f"--init: the checkpoint {checkpoint['name']!r} was trained with --input {before}, this run"
        f" has --input {input_name}: the weights would see inputs of other values. Add --input"
        f" {before}, or choose another checkpoint."
    )


def _inference_state(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """State dict of the network for inference: the trained model, or its EMA teacher."""
    return checkpoint["parts"][checkpoint.get("inference_network", "model")]
