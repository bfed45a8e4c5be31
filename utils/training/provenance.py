"""Which images a network has seen, itself or through the networks that it learned from."""

from collections.abc import Sequence
from typing import Any


def labelled_images(checkpoint: dict[str, Any]) -> list[str]:
    """Images of a target whose true labels a network learned from, also through others.

    ``checkpoint``: one, or a part of its metadata; older ones tell by their settings.
    """
    trained_on = checkpoint.get("settings", {}).get("train_on")
    seen = checkpoint.get("seen_images", []) if trained_on == "target" else []
    return checkpoint.get("labelled_images", seen)


def inherited(
    seen: Sequence[str], *origins: dict[str, Any], labelled: Sequence[str] = ()
) -> dict[str, Any]:
    """Metadata of a network that learned from the images ``seen``, and from other networks.

    ``origins``: checkpoints, or parts of their metadata. ``labelled``: images of the target whose
    true labels it learned from.
    """
    old = [name for origin in origins for name in origin.get("seen_images", [])]
    metadata: dict[str, Any] = {"seen_images": list(dict.fromkeys([*seen, *old]))}
    true = [name for origin in origins for name in labelled_images(origin)]
    if labelled or true:
        metadata["labelled_images"] = list(dict.fromkeys([*labelled, *true]))
    unknown = [name for origin in origins for name in origin.get("unknown_weights", [])]
    if unknown:
        metadata["unknown_weights"] = list(dict.fromkeys(unknown))
    if any(origin.get("chosen_with_labels") for origin in origins):
        metadata["chosen_with_labels"] = True
    return metadata
