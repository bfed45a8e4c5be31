"""What may change when a run is resumed: nothing that changes the training, but images left out."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESUME_MAY_CHANGE = frozenset(
    # Where a run is computed and how it is watched.
    ("resume", "device", "workers", "name", "output", "max_steps", "epochs")
    + ("log_every", "save_every", "validate_every", "panel_every")
    + ("keep_every", "keep_last", "stop_on_collapse", "collapse_window")
    # Micro-batches matter through BatchNorm alone, which is recorded: batch_norm_group_sizes,
    # batch_norm_updates.
    + ("accumulate", "compile")
    # Data are compared by the names of the images, not by their path.
    + ("gta5", "cityscapes", "target", "list", "source_list", "target_list", "val_list")
    + ("source_layout", "target_layout")
    # Classes are compared by what the file says.
    + ("class_set",)
    # Pseudo-labels by their content; images that --leave-out names may be missing.
    + ("pseudo_labels", "leave_out")
    # Read at the start only, or kept in the checkpoint; teachers are compared by their names.
    + ("init", "backbone_weights", "recipe", "teachers")
)
"""Settings that may differ when a run is resumed: they do not change what it learns."""
RESUME_HINTS = (
    (
        "batch_norm_",
        "BatchNorm's groups and updates follow from --batch-size, --accumulate, --bn and the number"
        " of processes.",
    ),
    ("schedule_steps", "Without --schedule-steps, train.py's schedule ends with --max-steps."),
    ("_fingerprint", "A damaged image is left out by --leave-out NAME."),
)
"""What settings that are perhaps no flags depend on, by a part of their names."""


def differences(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """Settings of ``now`` that were others before and matter, each as "name: before -> now".

    What ``before`` does not hold is not compared.
    """
    return [
        f"{name}: {before[name]} -> {value}"
        for name, value in sorted(now.items())
        if name in before and name not in RESUME_MAY_CHANGE and value != before[name]
    ]


def is_named(name: str, words: Sequence[str]) -> bool:
    """Whether an image is one of the ``words`` of --leave-out: names, or paths of files.

    Folders that both have are equal: drive1/0001.png is not drive2/0001.
    """
    own = Path(name).parts
    paths = [path for word in words for path in (Path(word), Path(word).with_suffix(""))]
    return any(path.parts[-len(own) :] == own[-len(path.parts) :] for path in paths)


def require_known_words(words: Sequence[str], left_out: Sequence[str], names: list[str]) -> None:
    """Raises ValueError where one of the ``words`` of --leave-out names no image.

    ``left_out``: the images that they leave out, and that they left out before. ``names``: all
    others of the run.
    """
    unknown = [word for word in words if not any(is_named(name, [word]) for name in left_out)]
    if unknown:
        lasts = {name.rsplit("/", 1)[-1]: name for name in names}
        word = Path(unknown[0]).stem
        nearest = difflib.get_close_matches(word, lasts, n=1, cutoff=0.0)
        found = f"; the nearest name there is {lasts[nearest[0]]!r}" if nearest else ""
        raise ValueError(
            f"--leave-out {unknown[0]}: none of the run's images has this name{found}. Correct it,"
            " or remove it."
        )


def removed_alone(now: list[str], before: list[str], words: Sequence[str]) -> bool:
    """Whether ``now`` is ``before`` without some images, all of which ``words`` name."""
    present = set(now)
    kept = [name for name in before if name in present]
    return kept == now and all(is_named(name, words) for name in set(before) - present)


def equal_image_lists(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """Settings that stand for images, where ``now`` has those of ``before``.

    Images that --leave-out of ``now`` names may be missing. Both are metadata of runs.
    """
    words, names_before = now["settings"].get("leave_out") or (), before.get("data_names", {})
    return [
        key
        for key, names in now.get("data_names", {}).items()
        if key in names_before and removed_alone(names, names_before[key], words)
    ]
