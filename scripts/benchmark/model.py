"""Cost of the network: parameters, MACs, latency, frames per second, and peak memory.

Normalized images in, logits at the size of the image out. Compares several configurations (backend
and precision) with the baseline network (scripts/baselines.py) in eager float32, NCHW. Clocks are
synchronized and start after a warm-up; the configurations take turns.
"""

import copy
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from dataset.labels import NUM_CLASSES
from model.bisenet import BiSeNet, LogitsOnly
from model.inference.cost import convolution_macs, count_parameters, ptflops_macs
from model.inference.export import DeployedNetwork, export_onnx
from model.inference.exported_network import INT8_SUFFIX, OnnxNetwork, require_onnx
from model.inference.fold_batch_norm import fold_batch_norms
from model.inference.quantize import calibrate, quantize
from model.loading import load_network
from model.preprocessing import INPUT_CONVENTIONS
from scripts.baselines import BaselineBiSeNet
from scripts.benchmark.baseline import BACKBONES, require_baseline
from utils.benchmark.memory import PeakMemory
from utils.benchmark.timing import measure, percentiles_ms, ratio
from utils.files import write_json
from utils.options.parser import available_cores, positive_int
from utils.report.tables import markdown_table
from utils.training.checkpoint import read_checkpoint
from utils.training.environment import environment, processor
from utils.training.precision import PRECISIONS, choose_device, choose_precision

BASELINE = "baseline eager fp32"
ONNX, INT8 = "onnx fp32", "onnx int8"
BACKENDS = ("eager", "folded", "compiled", "onnx", "int8")


def add_arguments(parser) -> None:
    parser.add_argument(
        "--backbone",
        choices=BACKBONES,
        help="backbone of the network, with random weights; default: resnet18",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="network to measure instead of random weights, which have the same speed",
    )
    parser.add_argument(
        "--size",
        type=positive_int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        default=(512, 1024),
        help="image size in pixels, multiples of 32",
    )
    parser.add_argument(
        "--batch-size", type=positive_int, default=1, help="images per batch; 1 for a camera"
    )
    parser.add_argument(
        "--precisions",
        choices=tuple(PRECISIONS),
        nargs="+",
        help="default: fp32 and the fastest precision of the hardware",
    )
    parser.add_argument(
        "--backends",
        choices=BACKENDS,
        nargs="+",
        default=BACKENDS,
        help="folded: BatchNorm folded; compiled: torch.compile, too; onnx, int8: ONNX Runtime",
    )
    parser.add_argument(
        "--repeats",
        type=positive_int,
        default=15,
        help="timed forward passes of each configuration",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto: CUDA if there is a GPU",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the results, with ratio_best_vs_eager_fp32 and ratio_int8_vs_onnx_fp32",
    )


Configurations = dict[str, Callable[[], object]]
"""Functions that pass the images through a network, by name."""


def run(args) -> None:
    device = choose_device(args.device)
    precisions = list(dict.fromkeys(args.precisions or ("fp32", choose_precision("auto", device))))
    check_arguments(args, precisions, device)
    torch.manual_seed(0)
    network = measured_network(args)
    backbone, num_classes = (network.architecture[key] for key in ("backbone", "num_classes"))
    image = torch.randn(args.batch_size, 3, *args.size, device=device)
    baseline = BaselineBiSeNet(num_classes, backbone).eval()
    cost = measure_cost(network, baseline, tuple(args.size))

    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        baseline.to(device)
        configurations, left_out = prepare_configurations(
            network, args.backends, precisions, image, Path(folder)
        )
        configurations = {BASELINE: lambda: baseline(image)} | configurations
        peaks = measure_peak_memory(configurations, device)
        seconds = measure(configurations, device, args.repeats)

    results = summarize(seconds, peaks, args.batch_size)
    same_function = [name for name in results if name not in (BASELINE, INT8)] or [BASELINE]
    best = max(same_function, key=lambda name: results[name]["ratio_vs_eager_fp32"])
    machine = {
        "device": str(device),
        "processor": processor(),
        "cores": available_cores(),
        "environment": environment(),
    }
    print(
        f"\nBiSeNet, {backbone}, {args.batch_size} x {args.size[0]}x{args.size[1]}, on"
        f" {machine['environment']['gpu'] or machine['processor']}"
    )
    print(f"({machine['environment']['cpu_threads']} threads, torch {torch.__version__})")
    print(*(f"{name.replace('_', ' ')}: {value:,.2f}" for name, value in cost.items()), sep="\n")
    print(f"\n{results_table(results)}")
    for name, reason in left_out.items():
        print(f"left out: {name} ({reason})")
    for value in int8_ratio(seconds).values():
        print(f"int8 is {value:.2f} times as fast as float32 in ONNX Runtime")
    if args.json:
        result = {
            "backbone": backbone,
            "size": list(args.size),
            "batch_size": args.batch_size,
            "repeats": args.repeats,
            **cost,
            "sides": results,
            "left_out": left_out,
            "best": best,
            "ratio_best_vs_eager_fp32": results[best]["ratio_vs_eager_fp32"],
            **int8_ratio(seconds),
            **machine,
        }
        write_json(args.json, result)


def measured_network(args) -> BiSeNet:
    """That of --checkpoint, or one with random weights. Raises ValueError without a baseline."""
    if not args.checkpoint:
        return BiSeNet(NUM_CLASSES, args.backbone or "resnet18").eval()
    if args.backbone:
        raise ValueError("--backbone: --checkpoint brings its own. Give one of the two.")
    network, _ = load_network(read_checkpoint(args.checkpoint))
    require_baseline(network.architecture, str(args.checkpoint))
    return network


def check_arguments(args, precisions: list[str], device: torch.device) -> None:
    """Raises ValueError for a precision or a size that cannot be measured."""
    for precision in precisions:
        choose_precision(precision, device)
    if args.size[0] % 32 or args.size[1] % 32:
        raise ValueError(
            f"--size {args.size[0]} {args.size[1]}: the baseline network takes multiples of 32."
            " Choose the nearest ones."
        )


def measure_cost(
    network: nn.Module, baseline: nn.Module, size: tuple[int, int]
) -> dict[str, float]:
    """Parameters without the auxiliary heads, and MACs for one image of ``size`` (height, width).

    The closed form counts convolutions only; ptflops also counts pointwise work and upsampling.
    """
    auxiliary = count_parameters(network.aux16) + count_parameters(network.aux32)
    input_shape = (3, *size)
    return {
        "parameters_million": (count_parameters(network) - auxiliary) / 1e6,
        "convolution_gmac_closed_form": convolution_macs(network, input_shape) / 1e9,
        "convolution_gmac_closed_form_published_order": (
            convolution_macs(baseline, input_shape) / 1e9
        ),
        "gmac_ptflops": ptflops_macs(copy.deepcopy(network), input_shape) / 1e9,
    }


def prepare_configurations(
    network: nn.Module, backends: list[str], precisions: list[str], image: Tensor, folder: Path
) -> tuple[Configurations, dict[str, str]]:
    """Configurations of all backends and precisions, and the reasons for those that are left out.

    ONNX Runtime is measured in fp32 and int8 only. ``folder``: for temporary files.
    """
    configurations, left_out = {}, {}
    fixed = {"onnx": ["fp32"], "int8": ["int8"]}
    for backend in backends:
        for precision in fixed.get(backend, precisions):
            name = INT8 if backend == "int8" else f"{backend} {precision}"
            try:
                configurations[name] = _prepare(network, backend, precision, image, folder)
            except (ValueError, RuntimeError) as error:  # no C++ compiler, no ONNX Runtime
                left_out[name] = str(error).splitlines()[0]
    return configurations, left_out


def _prepare(
    network: nn.Module, backend: str, precision: str, image: Tensor, folder: Path
) -> Callable[[], object]:
    """A configuration; raises ValueError or RuntimeError if ``backend`` is not available."""
    if backend in ("onnx", "int8"):
        return _prepare_onnx(network, image, folder, backend == "int8")
    model = copy.deepcopy(network) if backend == "eager" else fold_batch_norms(network)
    model = LogitsOnly(model).to(image.device, PRECISIONS[precision])
    model = model.to(memory_format=torch.channels_last).eval().requires_grad_(False)
    x = image.to(PRECISIONS[precision], memory_format=torch.channels_last)
    if backend == "compiled":
        model = _compile(model, x)
    return lambda: model(x)


def _prepare_onnx(
    network: nn.Module, image: Tensor, folder: Path, int8: bool
) -> Callable[[], object]:
    """Exports the network and runs it with ONNX Runtime; input and output are float32 arrays.

    ``int8``: the convolutions are quantized, calibrated on ``image``.
    """
    require_onnx("onnx", "onnxscript", "onnxruntime")
    if int8 and image.device.type == "cuda":
        raise ValueError("measured on CPUs only; on a GPU build a TensorRT engine of the file")
    normalization = INPUT_CONVENTIONS["imagenet"]
    metadata = {
        "name": "benchmark",
        "num_classes": network.architecture["num_classes"],
        "input": normalization.as_dict(),
    }
    deployed = DeployedNetwork(network, normalization, normalize_inside=False, argmax_inside=False)
    path, array = folder / "network.onnx", image.cpu().numpy()
    export_onnx(deployed, path, metadata)
    if int8:
        float_file, path = path, folder / f"network{INT8_SUFFIX}"
        quantize(float_file, path, calibrate(float_file, array))
    exported = OnnxNetwork(path, image.device)
    return lambda: exported.run(array)


def _compile(model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """Compiles with torch.compile and frozen weights, whose memory layout may then change.

    Takes about a minute.
    """
    import torch._inductor.config  # slow to import, and only needed here

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # meant for developers of the compiler
        torch._inductor.config.freezing = True
        torch._dynamo.reset()
        compiled = torch.compile(model)
        compiled(x)
    return compiled


def measure_peak_memory(configurations: Configurations, device: torch.device) -> dict[str, int]:
    """Peak memory of one forward pass above the weights, in bytes, after a first pass."""
    peaks = {}
    for name, forward in tqdm(configurations.items(), desc="memory", disable=None):
        forward()
        with PeakMemory(device) as memory:
            forward()
        peaks[name] = memory.bytes
    return peaks


def summarize(
    seconds: dict[str, list[float]], peaks: dict[str, int], batch_size: int
) -> dict[str, dict[str, Any]]:
    """Latency, speed, memory and speed-up of each configuration."""
    results = {}
    for name, turns in seconds.items():
        latency_ms = percentiles_ms(turns)
        results[name] = {
            "latency_ms": latency_ms,
            "frames_per_second": 1000 * batch_size / latency_ms["p50"],
            "peak_memory_mb": peaks[name] / 1e6,
            "ratio_vs_eager_fp32": ratio(seconds[BASELINE], turns),
        }
    return results


def int8_ratio(seconds: dict[str, list[float]]) -> dict[str, float]:
    """How many times as fast int8 is as float32 in ONNX Runtime; {} unless both were measured."""
    if not {ONNX, INT8} <= seconds.keys():
        return {}
    return {"ratio_int8_vs_onnx_fp32": ratio(seconds[ONNX], seconds[INT8])}


def results_table(results: dict[str, dict[str, Any]]) -> str:
    head = ["configuration", "min ms", "median ms", "p90 ms", "p99 ms"]
    head += ["frames/s", "times as fast", "peak MB above weights"]
    keys = ("frames_per_second", "ratio_vs_eager_fp32", "peak_memory_mb")
    rows = []
    for name, result in results.items():
        values = [*result["latency_ms"].values(), *(result[key] for key in keys)]
        rows.append([name, *(f"{value:.1f}" for value in values)])
    return markdown_table(head, rows)
