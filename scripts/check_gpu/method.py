"""What the methods reach in equal time: each is trained, stopped and scored."""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from scripts.check_gpu.doors import (
    Outcome,
    flags,
    require_success,
    run_script,
    run_successfully,
    streets,
)
from scripts.check_gpu.plan import Broken, Check, Context, Finding

ROWS = {
    "source-only": ("train.py", ("--train-on", "source")),
    "light LAB-ADA": ("train_da.py", ("--discriminator", "light", "--lab")),
    "strong": ("train_da.py", ("--recipe", "strong")),
    "oracle": ("train.py", ("--train-on", "target", "--validate-every", "0")),
}
"""Each with the same network, crop, batch and learning rate."""
SCORING, LEAST_SCORING_S = 0.2, 40
"""Fraction of the time that is left for scoring, and the seconds that it takes at least."""
LONG_S = 600
"""With so many seconds more streets are drawn, which takes longer."""


@contextlib.contextmanager
def stop_after(seconds: float) -> Iterator[None]:
    """Sends this process SIGUSR1 after ``seconds``, on which training scripts save and end."""
    over = threading.Event()

    def remind() -> None:
        pause = seconds
        while not over.wait(pause):
            os.kill(os.getpid(), signal.SIGUSR1)
            pause = 0.5

    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # before and after the script listens
    reminder = threading.Thread(target=remind, daemon=True)
    reminder.start()
    try:
        yield
    finally:
        over.set()
        reminder.join()
        signal.signal(signal.SIGUSR1, before)


def train_row(
    context: Context, name: str, roots: tuple[Path, Path], seconds: float
) -> tuple[Path, float]:
    """Trains one row for ``seconds``; returns its checkpoint and how long it took in s."""
    script, own_flags = ROWS[name]
    folder = name.lower().replace(" ", "-")
    checkpoint = context.folder / "method" / folder / "last.pt"
    checkpoint.unlink(missing_ok=True)
    settings = {"gta5": roots[0], "cityscapes": roots[1], "output": context.folder / "method"}
    settings |= {"name": folder, "backbone": "resnet18", "backbone_weights": "none", "lr": 1e-2}
    settings |= {"crop_size": (64, 128) if context.small else (512, 1024), "batch_size": 4}
    settings |= {"max_steps": 100_000, "schedule_steps": 250_000, "save_every": 100_000}
    settings |= {"panel_every": 0, "device": context.device.type}
    if context.small:
        settings |= {"workers": 0, "precision": "fp32"}
    settings.pop({"source-only": "cityscapes", "oracle": "gta5"}.get(name), None)  # not read
    start = time.perf_counter()
    with stop_after(seconds):
        ended: Outcome = run_script(script, *own_flags, *flags(settings))
    require_success(f"{name}: {script}", ended.status, ended.error or ended.output)
    if not checkpoint.exists():
        raise Broken(f"{name}: {script} was stopped and left no {checkpoint}")
    return checkpoint, time.perf_counter() - start


def training_seconds(left: float, small: bool) -> float:
    """How long each row is trained when ``left`` seconds are left for all of them and scoring."""
    if small:
        return min(1.0, left / (2 * len(ROWS)))
    return max(1.0, min(left * (1 - SCORING), left - LEAST_SCORING_S) / len(ROWS))


def roots_of(context: Context) -> tuple[Path, Path]:
    """Roots of the real data where they were given, else of generated streets."""
    if context.gta5 is not None and context.cityscapes is not None:
        return context.gta5, context.cityscapes
    if context.small:
        data = streets(context)
    else:
        data = streets(context, 64 if context.seconds >= LONG_S else 24, (512, 1024))
    return data / "gta5", data / "cityscapes"


def rows(context: Context) -> Finding:
    """mIoU of four rows after equal times, on the real data or on generated streets."""
    start = time.perf_counter()
    roots = roots_of(context)  # drawing takes its time: what is left is shared by the rows
    seconds = training_seconds(context.seconds - (time.perf_counter() - start), context.small)
    figures, checkpoints = {}, []
    for name in ROWS:
        checkpoint, taken = train_row(context, name, roots, seconds)
        checkpoints.append(checkpoint)
        figures[name] = {"seconds": taken}
    output = context.folder / "method.json"
    settings = {"cityscapes": roots[1], "device": context.device.type, "json": output}
    settings |= {"workers": 0} if context.small else {}
    run_successfully("eval.py", *checkpoints, *flags(settings))
    for name, row in zip(ROWS, json.loads(output.read_text(encoding="utf-8"))["rows"], strict=True):
        figures[name] |= {"miou_percent": 100 * row["miou"], "steps": row["step"]}
    texts = [
        f"{name} {found['miou_percent']:.2f} % ({found['steps']} steps)"
        for name, found in figures.items()
    ]
    where = "the real data" if context.gta5 is not None else "generated streets"
    return Finding(
        f"mIoU after {seconds:.0f} s on {where}: {', '.join(texts)}",
        {"data": where, "rows": figures},
    )


CHECKS = (
    Check("method", "equal time", rows, limit_s=24 * 3600, alone=True, fills=True, least_s=60),
)
