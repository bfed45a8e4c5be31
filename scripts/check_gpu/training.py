"""Training speed and memory beside the baseline's, the data loader, and a profile."""

import functools
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEventAvg

from scripts.check_gpu import ours
from scripts.check_gpu.doors import (
    CAMERA_SIZE,
    FRAMES,
    GAME_SIZE,
    METHOD_FLAGS,
    flags,
    run_process,
    streets,
)
from scripts.check_gpu.plan import Broken, Check, Context, Finding, NotHere
from utils.options.parser import available_cores
from utils.training.precision import choose_precision

SIZES = ((4, 512, 1024), (2, 512, 1024), (2, 256, 512))
"""(images of each domain, height, width): the first that fits into the memory of the card."""
SMALL_SIZES = ((2, 64, 128),)


def sides_of(context: Context, with_fp32: bool) -> list[str]:
    """What is compared on this hardware."""
    if not context.on_gpu:
        return ["baseline fp32", "ours fp32"]
    precisions = (
        ["fp16"]
        + (["bf16"] if choose_precision("auto", context.device) == "bf16" else [])
        + ["fp32"] * with_fp32
    )
    return ["baseline fp32", "baseline fp16", *(f"ours {precision}" for precision in precisions)]


def measure_side(
    context: Context, side: str, backbone: str, method: str, size: tuple[int, int, int]
) -> dict:
    """The figures of one side, measured in a process of its own."""
    output = context.folder / "side.json"
    output.unlink(missing_ok=True)
    job = {"side": side, "backbone": backbone, "method": method, "size": size}
    job |= {"device": context.device.type, "seconds": 0.2 if context.small else 3.0}
    command = ["-m", "scripts.check_gpu.side", json.dumps(job), output]
    run_process(side, command, context.seconds)
    return json.loads(output.read_text(encoding="utf-8"))


def compare_sides(
    context: Context, backbone: str, method: str, with_fp32: bool = False, turns: int = 1
) -> Finding:
    """Speed and peak memory of every side, in turns; of several turns the fastest counts.

    Where one side runs out of memory, all are measured with a smaller size.
    """
    context.folder.mkdir(parents=True, exist_ok=True)
    sides = sides_of(context, with_fp32)
    for size in SMALL_SIZES if context.small else SIZES:
        found = [
            {side: measure_side(context, side, backbone, method, size) for side in sides}
            for _ in range(turns)
        ]
        if not any("out_of_memory" in figures for turn in found for figures in turn.values()):
            break
    else:
        raise Broken(
            f"out of memory also with {size[0]} x {size[1]}x{size[2]}; free the GPU, see nvidia-smi"
        )
    best = {
        side: max(
            (turn[side] for turn in found), key=lambda figures: figures["iterations_per_second"]
        )
        for side in sides
    }
    for figures in best.values():
        for reference in [side for side in sides if side.startswith("baseline")]:
            name = reference.replace(" ", "_")
            figures[f"speed_over_{name}"] = (
                figures["iterations_per_second"] / best[reference]["iterations_per_second"]
            )
            figures[f"memory_over_{name}"] = (
                figures["peak_memory_mb"] / best[reference]["peak_memory_mb"]
            )
    texts = [
        f"{side} {found['iterations_per_second']:.3g} it/s {found['peak_memory_mb']:.0f} MB"
        for side, found in best.items()
    ]
    shape = f"{size[0]} x {size[1]}x{size[2]}"
    return Finding(
        f"{shape}: {', '.join(texts)}",
        {"size": list(size), "backbone": backbone, "method": method, "sides": best},
    )


def draw_frames(context: Context) -> tuple[Path, Path]:
    """Roots of generated frames in the sizes of GTA5 and Cityscapes (small on a CPU)."""
    if context.small:
        return streets(context) / "gta5", streets(context) / "cityscapes"
    return streets(context, FRAMES, GAME_SIZE) / "gta5", streets(
        context, FRAMES, CAMERA_SIZE
    ) / "cityscapes"


def prepare_frames(context: Context, roots: tuple[Path, Path]) -> tuple[Path, Path]:
    """The same frames as scripts.prepare writes them: decoded once."""
    prepared = context.folder / "prepared-gta5", context.folder / "prepared-cityscapes"
    for flag, root, output in zip(("--gta5", "--cityscapes"), roots, prepared, strict=True):
        command = ["-m", "scripts.prepare", flag, root, "--output", output]
        run_process("scripts.prepare", command, context.seconds)
    return prepared


def loader_waits(context: Context, prepared: bool) -> Finding:
    """The fraction of a step that waits for data, on frames of full size, by workers."""
    gta5, cityscapes = draw_frames(context)
    if prepared:
        gta5, cityscapes = prepare_frames(context, (gta5, cityscapes))
    settings = {"gta5": gta5, "cityscapes": cityscapes, "backbone": "resnet18"}
    settings |= {"backbone_weights": "none", "panel_every": 0, "device": context.device.type}
    if context.small:
        counts = (1,)
        settings |= {"crop_size": (64, 128), "max_steps": 4, "log_every": 2}
    else:
        counts = sorted({2, 4, 8, min(16, available_cores())})
        settings |= {"crop_size": (512, 1024), "max_steps": 60, "log_every": 20}
    figures = {str(workers): time_with_workers(context, workers, settings) for workers in counts}
    texts = [
        f"{workers} workers wait {100 * found['waiting_fraction']:.0f} %"
        for workers, found in figures.items()
    ]
    return Finding(", ".join(texts), {"prepared": prepared, "by_workers": figures})


def time_with_workers(context: Context, workers: int, settings: dict) -> dict[str, float]:
    """The times of a step of light LAB-ADA, trained by train_da.py in a process of its own."""
    folder = context.folder / "runs" / f"loader-{workers}"
    for old in [*folder.glob("events.*"), folder / "last.pt"]:
        old.unlink(missing_ok=True)
    settings = settings | {"output": folder.parent, "name": folder.name, "workers": workers}
    command = ["train_da.py", *flags(settings), *METHOD_FLAGS["light LAB"]]
    run_process(f"train_da.py with {workers} workers", command, context.seconds)
    return read_times(folder)


def read_times(run: Path) -> dict[str, float]:
    """Seconds of a step as a run logged them last: waiting for data, and computing."""
    events = EventAccumulator(str(run))
    events.Reload()
    wait_s, compute_s = (
        events.Scalars(f"time/{name}")[-1].value for name in ("data_wait_s", "compute_s")
    )
    step_s = wait_s + compute_s
    times = {"data_wait_ms": 1000 * wait_s, "compute_ms": 1000 * compute_s}
    return times | {"waiting_fraction": wait_s / step_s, "iterations_per_second": 1 / step_s}


def self_times(events: Iterable[FunctionEventAvg], on_gpu: bool) -> dict[str, float]:
    """Microseconds of every operation by its name, the longest first; on a GPU those of kernels and
    copies alone: the operations that started them are given the same time once more.
    """
    times = Counter()
    for event in events:
        if not on_gpu:
            times[event.key] += event.self_cpu_time_total
        elif event.device_type == DeviceType.CUDA and not getattr(
            event, "is_user_annotation", False
        ):
            times[event.key] += event.self_device_time_total
    if not sum(times.values()):
        raise NotHere(
            "the profiler saw no kernel: it needs CUPTI, and the permission to read counters "
            "(in a container: --cap-add SYS_ADMIN)"
        )
    return dict(times.most_common())


def profile(context: Context) -> Finding:
    """The ten operations that take most of a training step's time, light adversarial, ResNet-18."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    size = SMALL_SIZES[0] if context.small else SIZES[0]
    precision = choose_precision("auto", context.device) if context.on_gpu else "fp32"
    step = ours.training_step(ours.Setup("light", size, context.device, precision))
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * context.on_gpu

    def iteration() -> None:
        step.gradients()
        step.update()

    iterations = 1 if context.small else 5
    for _ in range(iterations):
        iteration()
    with profiler(activities=activities) as seen:
        for _ in range(iterations):
            iteration()
        if context.on_gpu:
            torch.cuda.synchronize()
    times = self_times(seen.key_averages(), context.on_gpu)
    total = sum(times.values())
    top = {name: us / 1000 / iterations for name, us in list(times.items())[:10]}
    text = ", ".join(f"{name[:40]} {times[name] / total:.0%}" for name in list(top)[:3])
    return Finding(
        text, {"precision": precision, "size": list(size), "self_time_ms_per_iteration": top}
    )


def _compare(backbone: str, method: str, **more: object) -> functools.partial:
    return functools.partial(compare_sides, backbone=backbone, method=method, **more)


CHECKS = (
    Check("training", "R18, light", _compare("resnet18", "light"), limit_s=240),
    Check(
        "training",
        "R18, light, with fp32, 3 turns",
        _compare("resnet18", "light", with_fp32=True, turns=3),
        False,
        600,
    ),
    Check("training", "R18, full", _compare("resnet18", "full"), False, 240),
    Check("training", "R101, light", _compare("resnet101", "light"), False, 300),
    Check("training", "R101, full", _compare("resnet101", "full"), False, 300),
    Check("training", "loader, PNG", functools.partial(loader_waits, prepared=False), False, 300),
    Check(
        "training", "loader, prepared", functools.partial(loader_waits, prepared=True), False, 300
    ),
    Check("training", "profile", profile, False, 120),
)
