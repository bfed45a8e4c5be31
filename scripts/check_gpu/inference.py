"""Inference speed: latency percentiles and frames a second, ours beside the baseline's."""

import functools
import itertools
import json
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from model.bisenet import LogitsOnly
from model.inference.fold_batch_norm import for_inference
from scripts.check_gpu import ours
from scripts.check_gpu.doors import (
    CAMERA_SIZE,
    FRAMES,
    run_successfully,
    streets,
    trained_checkpoint,
)
from scripts.check_gpu.plan import Check, Context, Finding, NotHere, expect_at_most, require_gpu
from scripts.check_gpu.reference import baseline_network, relative_error
from utils.training.precision import PRECISIONS, choose_precision

BASELINE = "baseline fp32"
GRAPH_TOLERANCE = 5e-2
Pass = Callable[[], object]


def latency_ms(run: Pass, device: torch.device, seconds: float) -> np.ndarray:
    """Latency of each of many passes after a warm-up; on CUDA by events."""
    on_gpu = device.type == "cuda"
    for _ in range(10 if on_gpu else 1):
        run()
    if on_gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if on_gpu:
        torch.cuda.synchronize()
    passes = int(min(1000, max(3, seconds / (time.perf_counter() - start))))
    if not on_gpu:
        moments = [time.perf_counter()]
        for _ in range(passes):
            run()
            moments.append(time.perf_counter())
        return 1000 * np.diff(moments)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(passes + 1)]
    events[0].record()
    for event in events[1:]:
        run()
        event.record()
    torch.cuda.synchronize()
    return np.array([first.elapsed_time(second) for first, second in itertools.pairwise(events)])


def require_same(found: Tensor, expected: Tensor, what: str) -> None:
    """Raises Broken where ``found`` differs by more than half precision rounds in a whole network.

    Values from memory that was freed differ by about 1.
    """
    found, expected = found.double().cpu().flatten(), expected.double().cpu().flatten()
    expect_at_most(relative_error(found, expected), GRAPH_TOLERANCE, f"{what}: relative error")


def captured(network: nn.Module, image: Tensor) -> Pass:
    """One pass of ``network`` on ``image`` as a CUDA graph, compared once with an eager one.

    The graph holds addresses alone: the function that is returned keeps network, image and output.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # a warm-up off the current stream, as capture asks for
        for _ in range(3):
            network(image)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = network(image)

    def replay(keep: tuple[nn.Module, Tensor] = (network, image)) -> Tensor:
        graph.replay()
        return output

    require_same(replay(), network(image), "CUDA graph")
    return replay


def build(side: str, model: nn.Module, image: Tensor) -> Pass:
    """A function that passes ``image`` (N, 3, H, W) through ``model`` as ``side`` says."""
    device = image.device
    if side == BASELINE:
        baseline = baseline_network(model).eval().to(device)
        return lambda: baseline(image)
    kind, precision = side.rsplit(maxsplit=1)
    dtype = PRECISIONS[precision]
    if kind == "NCHW":
        network, x = LogitsOnly(model).to(device, dtype), image.to(dtype)
    else:
        plain = (
            model.to(device, dtype, memory_format=torch.channels_last)
            if kind == "channels_last"
            else for_inference(model, device, dtype)
        )
        network, x = LogitsOnly(plain), image.to(dtype, memory_format=torch.channels_last)
    network.eval()  # folding leaves parts in training mode
    if kind == "folded, CUDA graph":
        return captured(network, x)
    if kind == "folded, compiled":
        network = torch.compile(network)
    return lambda: network(x)


def sides_of(context: Context, compiled: bool) -> list[str]:
    """What is compared. "folded" ones are channels_last, too."""
    if not context.on_gpu:
        return [BASELINE, "NCHW fp32", "channels_last fp32", "folded fp32"]
    halves = ["fp16"] + ["bf16"] * (choose_precision("auto", context.device) == "bf16")
    kinds = (
        ("folded, compiled",)
        if compiled
        else ("NCHW", "channels_last", "folded", "folded, CUDA graph")
    )
    return [
        BASELINE,
        *(["folded fp32"] if not compiled else []),
        *(f"{kind} {half}" for kind in kinds for half in halves),
    ]


@torch.inference_mode()
def speed(
    context: Context, backbone: str, size: tuple[int, int], batch: int, compiled: bool = False
) -> Finding:
    """Latencies of every side for ``batch`` images of ``size`` (height, width)."""
    if context.small:
        size = (64, 128)
    sides, figures = sides_of(context, compiled), {}
    image = torch.randn(batch, 3, *size, device=context.device)
    for side in sides:
        # Ours never use TF32; the reference implementation keeps torch's default.
        allowed = side == BASELINE
        torch.backends.cudnn.allow_tf32 = allowed
        model = ours.build_network(backbone).eval()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the compiler's remarks to its own developers
                run = build(side, model, image)
                taken = latency_ms(run, context.device, 0.2 if context.small else 1.5)
        except torch.OutOfMemoryError:
            figures[side] = {"out_of_memory": True}
            continue
        found = {f"p{q}": float(np.percentile(taken, q)) for q in (50, 90, 99)}
        figures[side] = {
            "latency_ms": found,
            "frames_per_second": 1000 * batch / found["p50"],
            "passes": len(taken),
        }
        del run, model
    measured = {side: found for side, found in figures.items() if "frames_per_second" in found}
    if not measured:
        raise NotHere("needs more memory")
    texts = [f"{side} {found['frames_per_second']:.0f}" for side, found in measured.items()]
    texts += [f"{side} out of memory" for side in figures.keys() - measured.keys()]
    about = {"backbone": backbone, "size": list(size), "batch_size": batch}
    return Finding(
        f"{batch} x {size[0]}x{size[1]}, frames/s: {', '.join(texts)}", about | {"sides": figures}
    )


def evaluation_speed(context: Context) -> Finding:
    """eval.py's images a second: the time of scoring three times, less that of scoring once."""
    checkpoint = trained_checkpoint(context)
    data = streets(context) if context.small else streets(context, FRAMES, CAMERA_SIZE)
    flags = [
        "--cityscapes",
        data / "cityscapes",
        "--split",
        "train",
        "--device",
        context.device.type,
    ]
    seconds, output = [], context.folder / "evaluation-speed.json"
    for times in (1, 3):
        start = time.perf_counter()
        run_successfully("eval.py", *[checkpoint] * times, *flags, "--json", output)
        seconds.append(time.perf_counter() - start)
    scored = 2 * json.loads(output.read_text(encoding="utf-8"))["images"]
    rate = scored / max(seconds[1] - seconds[0], 1e-9)
    figures = {"images_per_second": rate, "images": scored, "precision": "auto"}
    return Finding(f"{rate:.3g} images/s", figures)


def compiled_speed(context: Context, backbone: str) -> Finding:
    """``speed`` through torch.compile, at 1024x2048."""
    require_gpu(context)
    return speed(context, backbone, (1024, 2048), 1, compiled=True)


def _speed(backbone: str, size: tuple[int, int], batch: int) -> Check:
    name = f"{backbone.replace('resnet', 'R')}, {batch} x {size[0]}x{size[1]}"
    run = functools.partial(speed, backbone=backbone, size=size, batch=batch)
    return Check("inference", name, run, core=backbone == "resnet18" and batch == 1, limit_s=90)


CHECKS = (
    *(
        _speed(backbone, size, batch)
        for backbone in ("resnet18", "resnet101")
        for batch in (1, 8)
        for size in ((1024, 2048), (512, 1024))
    ),
    Check("inference", "eval.py", evaluation_speed, False, 120),
    Check(
        "inference",
        "R18, compiled",
        functools.partial(compiled_speed, backbone="resnet18"),
        False,
        240,
    ),
)
