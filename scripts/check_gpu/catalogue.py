"""All checks, in the order in which they run."""

from scripts.check_gpu import inference, laws, method, training
from scripts.check_gpu.plan import STEPS, Check

CHECKS = (*laws.CHECKS, *training.CHECKS, *inference.CHECKS, *method.CHECKS)


def find(key: str) -> Check:
    """The check called ``key``, "STEP/NAME"."""
    return next(check for check in CHECKS if check.key == key)


def select(only: str | None) -> list[Check]:
    """All checks, one step's, or those whose "STEP/NAME" begins with ``only``; else ValueError."""
    chosen = [
        check
        for check in CHECKS
        if only is None or check.step == only or check.key.startswith(only)
    ]
    if not chosen:
        raise ValueError(
            f"--only {only}: no such step. Expected one of {', '.join(STEPS)}, "
            "or STEP/NAME as in the table's columns."
        )
    return chosen
