"""Reasons why the scores of a network must not be compared with others as they are."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_KIND_OF_IMAGE = re.compile(r"_leftImg8bit.*")
"""What follows the name of a scene in Cityscapes and in its fog and rain."""


def seen_images(recorded: Sequence[str], scored: Sequence[str]) -> int:
    """How many of the ``scored`` images are among the ``recorded`` ones.

    Images are "DATA_SET::FOLDERS/NAME". The data set may be unknown, and then it may be any one;
    folders are compared where both images have them and are of one data set: images that were named
    one by one lack them, and copies may lie in others. An image of Cityscapes with fog or rain
    counts as the image itself.
    """
    known: dict[str, set[tuple[str, tuple[str, ...]]]] = {}
    for image in recorded:
        name, origin = _identity(image)
        known.setdefault(name, set()).add(origin)
    scored_identities = map(_identity, scored)
    return sum(
        any(_may_be_equal(origin, other) for other in known.get(name, ()))
        for name, origin in scored_identities
    )


def _identity(image: str) -> tuple[str, tuple[str, tuple[str, ...]]]:
    """Name of the scene without folders, and its origin: (data set or "", folders from within)."""
    data_set, _, name = image.rpartition("::")
    *folders, file = Path(name).parts
    return _KIND_OF_IMAGE.sub("", file), (data_set, tuple(reversed(folders)))


def _may_be_equal(one: tuple[str, tuple[str, ...]], other: tuple[str, tuple[str, ...]]) -> bool:
    """Whether images of one name can be the same, by their origins."""
    (data_set, folders), (other_data_set, other_folders) = one, other
    if not data_set or not other_data_set:
        return True
    both = zip(folders, other_folders, strict=False)  # as many as both have
    return data_set == other_data_set and all(a == b for a, b in both)


def score_warnings(
    checkpoint: dict[str, Any], file_name: str, images: Sequence[str], tta: str | None
) -> list[str]:
    """Warnings to print and record beside the scores.

    ``checkpoint``: its metadata; ``images``: the scored ones, with their data set; ``tta``: the
    test-time augmentation.
    """
    name, warnings = checkpoint["name"], []
    seen = seen_images(checkpoint["seen_images"], images)
    if seen:
        warnings.append(
            f"{name} was trained or adapted on {seen} of the {len(images)} images it is"
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


def adaptation_warnings(
    metadata: dict[str, Any], target: Sequence[str], scored: Sequence[str], is_transductive: bool
) -> list[str]:
    """Warnings to print and record when an adaptation starts.

    ``metadata``: that of the run, with what it begins with or learns from. ``target``: the images
    that it adapts on; ``scored``: those that --validate-every scores, both with their data set.
    ``is_transductive``: whether it adapts on the split that is scored.
    """
    warnings = []
    if is_transductive:
        warnings.append(
            "WARNING: --target-split val adapts on the images of the target's val, which are also"
            " the scored ones (transductive). Scores of this run on val are not comparable with"
            " those of runs that never saw these images."
        )
    elif seen := seen_images(metadata["seen_images"], scored):
        warnings.append(
            f"WARNING: {seen} of the {len(scored)} images that --validate-every scores are learned"
            " from, by this run or by a network that it begins with (images of these names). Its"
            " scores are not comparable with those of runs that never saw these images."
        )
    if labelled := seen_images(metadata.get("labelled_images", []), target):
        warnings.append(
            f"WARNING: the true labels of {labelled} of the target's images are learned from, as"
            " source or --pseudo-labels, or by a network that this run begins with or learns from"
            " (--init, --teachers, --pseudo-labels): this is not unsupervised adaptation."
        )
    return warnings
