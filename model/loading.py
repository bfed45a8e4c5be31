"""From the content of a checkpoint to a network that can be used: the file knows its architecture
and its input convention.
"""

from typing import Any

from torch import Tensor

from model.bisenet import BiSeNet
from model.preprocessing import InputNormalization


def load_network(
    checkpoint: dict[str, Any], num_classes: int | None = None
) -> tuple[BiSeNet, InputNormalization]:
    """The network in evaluation mode, on the CPU, and what its input is. Of a run with a teacher it
    is the teacher that is deployed.

    Raises ValueError when the checkpoint has another number of classes than ``num_classes``.
    """
    architecture = checkpoint["architecture"]
    if num_classes is not None and architecture["num_classes"] != num_classes:
        raise ValueError(
            f"The checkpoint {checkpoint['name']!r} has {architecture['num_classes']} classes;"
            f" {num_classes} are expected here."
        )
    model = BiSeNet(**architecture)
    model.load_state_dict(_deployed(checkpoint))
    return model.eval(), InputNormalization.from_dict(checkpoint["input"])


def load_initial_weights(model: BiSeNet, checkpoint: dict[str, Any]) -> None:
    """Gives ``model`` the weights of a checkpoint's network. Raises ValueError when its
    architecture is another.
    """
    if checkpoint["architecture"] != model.architecture:
        raise ValueError(
            f"--init: the checkpoint {checkpoint['name']!r} is {checkpoint['architecture']}, this"
            f" run is {model.architecture}. Choose the same --backbone, or another checkpoint."
        )
    model.load_state_dict(_deployed(checkpoint))


def _deployed(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The state of the network that the run hands over: the one that learns, or the teacher that
    follows it.
    """
    return checkpoint["parts"][checkpoint.get("inference_network", "model")]
