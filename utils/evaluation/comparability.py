"""Reasons why the scores of a checkpoint must not be compared with others as they are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def score_warnings(
    checkpoint: dict[str, Any], file_name: str, image_names: Sequence[str], tta: str | None
) -> list[str]:
    """Warnings to print and record beside the scores.

    ``checkpoint``: its metadata; ``image_names``: the scored images; ``tta``: the test-time
    augmentation.
    """
    name, warnings = checkpoint["name"], []
    # Without the folder of the city: images that were named one by one lack it.
    adapted_on = {Path(image).name for image in checkpoint["seen_images"]}
    seen = adapted_on & {Path(image).name for image in image_names}
    if seen:
        warnings.append(
            f"{name} was trained or adapted on {len(seen)} of the {len(image_names)} images it is"
            " scored on (images of these names)."
        )
    for file in checkpoint.get("unknown_weights", ()):
        warnings.append(
            f"{name} began with the weights of {file}, whose training images are not known: images"
            " that it is scored on may be among them."
        )
    if checkpoint.get("chosen_with_labels"):
        warnings.append(
            f"{name} ({file_name}) was chosen by its score on labelled validation images, or"
            " learned from a checkpoint that was: report last.pt of a run that did neither."
        )
    if tta:
        warnings.append(
            f"{name} ({tta}) was scored with test-time augmentation: compare it only with scores"
            " that were, too."
        )
    return warnings
