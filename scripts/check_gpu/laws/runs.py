"""Whole training runs by train_da.py: repeated, resumed, moved, compiled, out of memory."""

import contextlib
import functools
from collections.abc import Iterator
from unittest import mock

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from scripts.check_gpu.doors import (
    METHOD_FLAGS,
    deterministic,
    relative_difference,
    require_equal,
    run_script,
    train,
    training_flags,
)
from scripts.check_gpu.plan import Broken, Check, Context, Finding, expect_at_most, require_gpu
from utils.training.checkpoint import read_checkpoint

REPEAT_TOLERANCE = 1e-2
"""Relative difference of the weights after some steps: sums are taken in another order."""


def repeats(context: Context, method: str) -> Finding:
    """The same run twice: bit for bit with deterministic algorithms, and close without."""
    flags = METHOD_FLAGS[method]
    with deterministic():
        first, second = (train(context, f"repeat-{turn}", 4, *flags) for turn in "ab")
    require_equal(first, second, "two deterministic runs")
    third = train(context, "repeat-c", 4, *flags)
    difference = relative_difference(third, first)
    text = "bit for bit; " + expect_at_most(difference, REPEAT_TOLERANCE, "without determinism")
    return Finding(text, {"relative_difference": difference})


def resumes(context: Context, method: str) -> Finding:
    """2 steps, resumed, and 2 more are 4 steps, bit for bit (deterministic algorithms)."""
    flags = METHOD_FLAGS[method]
    with deterministic():
        straight = train(context, "straight", 4, *flags)
        train(context, "resumed", 2, *flags)
        resumed = train(context, "resumed", 4, *flags, "--resume")
    require_equal(straight, resumed, "4 steps, and 2 steps + resume + 2,")
    return Finding("2 steps + resume + 2 = 4, bit for bit")


def moves_between_devices(context: Context) -> Finding:
    """A run on CUDA continues on the CPU, and the reverse, close to a run that stayed."""
    require_gpu(context)
    flags, largest = METHOD_FLAGS["light LAB"], 0.0
    stayed = train(context, "stayed", 3, *flags, device="cpu")
    for first, second in (("cuda", "cpu"), ("cpu", "cuda")):
        train(context, f"from-{first}", 2, *flags, device=first)
        moved = train(context, f"from-{first}", 3, *flags, "--resume", device=second)
        step = read_checkpoint(moved)["step"]
        if step != 3:
            raise Broken(f"{first} -> {second}: the checkpoint is of step {step}, expected 3")
        largest = max(largest, relative_difference(moved, stayed))
    return Finding(
        expect_at_most(largest, REPEAT_TOLERANCE, "relative difference"),
        {"relative_difference": largest},
    )


@contextlib.contextmanager
def refuse_synchronisation(first: int, last: int) -> Iterator[dict]:
    """From optimizer step ``first`` to ``last`` of SGD, counted from 1, any call that waits for the
    GPU raises RuntimeError. Gives a dict whose "steps" counts the steps.
    """
    seen = {"steps": 0}

    def after(optimizer: torch.optim.Optimizer, *_: object) -> None:
        if isinstance(optimizer, torch.optim.SGD):
            seen["steps"] += 1
            torch.cuda.set_sync_debug_mode("error" if first <= seen["steps"] < last else "default")

    hook = register_optimizer_step_post_hook(after)
    try:
        yield seen
    finally:
        hook.remove()
        torch.cuda.set_sync_debug_mode("default")


def never_waits(context: Context, precision: str, method: str) -> Finding:
    """Between two logged steps no call of ours waits for the GPU; batches are pinned."""
    require_gpu(context)
    with refuse_synchronisation(2, 6) as seen:
        try:
            train(context, "waits", 8, *METHOD_FLAGS[method], precision=precision)
        except RuntimeError as error:
            if "synchroniz" in str(error):
                raise Broken(
                    f"{method}, {precision}: a call waits for the GPU in step {seen['steps'] + 1} "
                    f"({error}); expected none. The log has the traceback"
                ) from error
            raise
    if seen["steps"] != 8:
        raise Broken(f"counted {seen['steps']} steps of SGD, expected 8: the law was not tested")
    return Finding("4 steps without waiting for the GPU")


def pinned_equals_blocking(context: Context) -> Finding:
    """Pinned batches copied without blocking train as blocking copies do, bit for bit."""
    require_gpu(context)
    flags, move = METHOD_FLAGS["light LAB"], torch.Tensor.to

    def blocking(tensor: torch.Tensor, *arguments: object, **options: object) -> torch.Tensor:
        if "non_blocking" in options:  # a module's own moves name it otherwise, and are no batches
            options["non_blocking"] = False
        return move(tensor, *arguments, **options)

    with deterministic():
        pinned = train(context, "pinned", 4, *flags)
        with mock.patch.object(torch.Tensor, "to", blocking):
            blocked = train(context, "blocked", 4, *flags)
    require_equal(pinned, blocked, "runs on pinned and on blocking batches")
    return Finding("bit for bit")


def compiles(context: Context) -> Finding:
    """--compile trains, and its weights are close to those of the eager run."""
    require_gpu(context)
    flags = METHOD_FLAGS["light LAB"]
    eager = train(context, "eager", 3, *flags)
    compiled = train(context, "compiled", 3, *flags, "--compile")
    difference = relative_difference(compiled, eager)
    text = expect_at_most(difference, REPEAT_TOLERANCE, "relative difference")
    return Finding(text, {"relative_difference": difference})


def out_of_memory_keeps_the_run(context: Context) -> Finding:
    """Out of memory after step 2: a message with the remedy, no traceback, step 2 saved."""
    require_gpu(context)
    flags = METHOD_FLAGS["light LAB"]
    count = 0

    def take_the_memory(optimizer: torch.optim.Optimizer, *_: object) -> None:
        nonlocal count
        count += isinstance(optimizer, torch.optim.Adam)  # the discriminator's, the last of a step
        if count == 2:
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(1e-6)

    settings = [*training_flags(context), "--name", "full-memory", "--max-steps", "4", *flags]
    checkpoint = context.folder / "runs/full-memory/last.pt"
    checkpoint.unlink(missing_ok=True)
    hook = register_optimizer_step_post_hook(take_the_memory)
    try:
        outcome = run_script("train_da.py", *settings)
    except torch.OutOfMemoryError as error:
        raise Broken(
            "out of memory ended with a traceback; expected a message that names --accumulate"
        ) from error
    finally:
        hook.remove()
        torch.cuda.set_per_process_memory_fraction(1.0)
    missing = [
        word for word in ("batch", "crop", "fp32", "--accumulate") if word not in outcome.error
    ]
    if outcome.status == 0 or missing:
        raise Broken(
            f"status {outcome.status}, message {outcome.error!r}; "
            f"expected an error that names {missing}"
        )
    if not checkpoint.exists() or read_checkpoint(checkpoint)["step"] != 2:
        raise Broken(f"{checkpoint} does not hold step 2, the last whole one")
    train(context, "full-memory", 4, *flags, "--resume")
    return Finding("a message with the remedy; the last whole step was saved and resumed")


def _for(method: str, run, **more: str) -> functools.partial:
    return functools.partial(run, method=method, **more)


CHECKS = (
    *(
        Check("laws", f"repeats: {method}", _for(method, repeats), core=method == "light LAB")
        for method in METHOD_FLAGS
    ),
    *(Check("laws", f"resumes: {method}", _for(method, resumes)) for method in METHOD_FLAGS),
    Check("laws", "moves between devices", moves_between_devices),
    *(
        Check(
            "laws",
            f"never waits: {method}, {precision}",
            _for(method, never_waits, precision=precision),
        )
        for method in METHOD_FLAGS
        for precision in ("bf16", "fp32")
    ),
    Check("laws", "pinned equals blocking", pinned_equals_blocking),
    Check("laws", "out of memory", out_of_memory_keeps_the_run, alone=True),
    Check("laws", "compiles", compiles, core=False, limit_s=180),
)
