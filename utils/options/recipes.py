"""Recipes, which are sets of defaults of the training scripts; and which settings a continued run
may change.
"""

# A recipe is a set of defaults: flags given on the command line win. "paper" is what the paper
# means (its errors mended), "authors" is what the published code does.
RECIPES = {
    "train": {
        "paper": {
            "backbone": "resnet18",
            "batch_size": 4,
            "lr": 5e-4,
            "epochs": 50,
            "poly_per": "iteration",
            "input": "imagenet",
            "crop": "random",
            "padding": "mean",
        },
        "authors": {
            "backbone": "resnet18",
            "batch_size": 4,
            "lr": 5e-4,
            "epochs": 50,
            "poly_per": "epoch",
            "input": "step2",
            "crop": "centre",
            "padding": "zero",
        },
    },
    "train_da": {
        "paper": {
            "backbone": "resnet101",
            "batch_size": 4,
            "target_batch_size": None,
            "lr": 5e-4,
            "d_lr": 1e-5,
            "max_steps": 25_000,
            "schedule_steps": 250_000,
            "input": "imagenet",
            "crop": "random",
            "padding": "mean",
            "target_split": "train",
            "target_view": "crops",
        },
        "authors": {
            "backbone": "resnet101",
            "batch_size": 4,
            "target_batch_size": 2,
            "lr": 2e-3,
            "d_lr": 4e-5,
            "max_steps": 6_251,
            "schedule_steps": 62_500,
            "input": "step34",
            "crop": "centre",
            "padding": "zero",
            "target_split": "val",
            "target_view": "whole",
        },
        # Self-training, with a source in the target's colors and looks that vary, and a teacher
        # that sees the whole image: chosen on two cities (docs/results.md).
        "strong": {
            "method": "self-training",
            "backbone": "resnet18",
            "batch_size": 4,
            "target_batch_size": None,
            "lr": 2e-2,
            "d_lr": None,
            "max_steps": 40_000,
            "schedule_steps": 40_000,
            "input": "imagenet",
            "crop": "random",
            "padding": "mean",
            "target_split": "train",
            "target_view": "crops",
            "lab": 1.0,
            "lab_by_class": True,
            "jitter": 0.8,
            "blur": 0.5,
            "rare_classes": True,
            "max_class_share": 0.75,
            "pixel_weights": "class",
            "fusion_channels": 128,
            "ema": 0.999,
            "teacher_view": "whole",
            "target_scales": (1.0,),
            "pseudo_weight": 2.0,
            "confidence_per": "class",
        },
    },
}

# Settings that may differ when a run is continued: they change where and how it is watched, not
# what it learns.
RESUME_MAY_CHANGE = frozenset(
    (
        "resume",
        "device",
        "workers",
        "max_steps",
        "epochs",
        "log_every",
        "save_every",
        "validate_every",
        "panel_every",
        "name",
        "output",
    )
    # Into how many parts a batch is split matters through BatchNorm alone, which is recorded: see
    # images_normalized_together.
    + ("accumulate", "compile")
    # What was read is compared by the names of its images, not by its place; weights to start from
    # were read at the start.
    + (
        "gta5",
        "cityscapes",
        "target_images",
        "list",
        "source_list",
        "target_list",
        "val_list",
        "init",
        "backbone_weights",
        "recipe",
    )
)
