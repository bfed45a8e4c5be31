"""Old words of flags and settings, and the words of today.

The old spelling of a flag ends with an error that names the new one. Settings in checkpoints of
format 1 are read through these tables, so nobody's runs are lost.
"""

from typing import Any

RENAMED_FLAGS = {
    "--confidence": "--pseudo-threshold",
    "--confidence-per": "--pseudo-weighting",
    "--domain-batches": "--joint-batch-norm",
    "--ignore-rows": "--pseudo-ignore-rows",
    "--lab-by-class": "--lab-class-balanced",
    "--max-class-share": "--cat-max-ratio",
    "--mixed-blur": "--strong-blur",
    "--mixed-jitter": "--strong-jitter",
    "--new-layer-rate": "--head-lr-mult",
    "--no-lab-by-class": "--no-lab-class-balanced",
    "--no-rare-classes": "--no-rare-class-sampling",
    "--pseudo-weight": "--lambda-pseudo",
    "--rare-classes": "--rare-class-sampling",
    "--teacher-statistics": "--teacher-bn",
    "--teacher-view": "--teacher-context",
}

RENAMED_VALUES: dict[tuple[str, Any], Any] = {
    ("--adversarial-loss", "least-squares"): "lsgan",
    ("--domain-batches", "joint"): True,
    ("--domain-batches", "separate"): False,
    ("--input", "step2"): "unit_rgb",
    ("--input", "step34"): "caffe_bgr",
    ("--pixel-weights", "equal"): "none",
    ("--pixel-weights", "hard"): "ohem",
    ("--save", "colour"): "color",
    ("--teacher-statistics", "averaged"): "ema",
    ("--train-on", "cityscapes"): "target",
    ("--train-on", "gta5"): "source",
}
"""{(old flag, old value): new value}."""

RENAMED_SETTINGS = {
    "data": "data_fingerprint",
    "images_normalised_together": "batch_norm_group_sizes",
    "source": "source_fingerprint",
    "target": "target_fingerprint",
    "target_images": "target",
}
"""Settings that are no flags, or whose flag keeps its old spelling, too."""

RENAMED_KEYS = {"cityscapes_images": "seen_images", "deployed": "inference_network"}
"""Keys of a checkpoint."""

RENAMED_PARTS = {"confidence": "pseudo_label_weight"}
"""Parts of a checkpoint."""


def new_arguments(argv: list[str]) -> list[str]:
    """A command line in old words, in the words of today."""
    translated, flag = [], ""
    for word in argv:
        if word.startswith("--"):
            flag = word
            translated.append(RENAMED_FLAGS.get(word, word))
            continue
        value = RENAMED_VALUES.get((flag, word), word)
        if value is False:
            translated[-1] = f"--no-{translated[-1].removeprefix('--')}"
        elif value is not True:
            translated.append(value)
    return translated


def new_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run in old words, in the words of today."""
    translated = {}
    for name, value in settings.items():
        flag = f"--{name.replace('_', '-')}"
        new_flag = RENAMED_FLAGS.get(flag, flag)
        new_name = RENAMED_SETTINGS.get(name, new_flag.removeprefix("--").replace("-", "_"))
        known = isinstance(value, str) and (flag, value) in RENAMED_VALUES
        translated[new_name] = RENAMED_VALUES[flag, value] if known else value
    return translated
