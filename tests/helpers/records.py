"""Files of scored runs as eval.py and the training scripts write them."""

from typing import Any


def run_record(seed: int = 0, **changed: Any) -> dict[str, Any]:
    """An entry of a run's config.json."""
    record = {
        "argv": ["train.py"],
        "git": "abc",
        "gpu": None,
        "cpu": "x",
        "torch": "2",
        "seed": seed,
        "settings": {"precision": "bf16"},
    }
    return record | changed


def score_row(miou: float = 0.3, **changed: Any) -> dict[str, Any]:
    """A row of eval.py's JSON file."""
    row = {
        "miou": miou,
        "pixel_accuracy": 0.5,
        "pixel_accuracy_with_void": 0.4,
        "mean_class_accuracy": 0.3,
        "averaged": 19,
        "classes": list(range(19)),
        "iou": [0.25] * 19,
        "precision": "bf16",
        "tta": None,
        "warnings": [],
        "model_parameters": 12_054_042,
        "model_gmac": 25.44,
    }
    return row | changed
