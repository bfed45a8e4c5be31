"""The network's cost: parameters, multiply-accumulates, latency, frames per second and peak memory,
in several configurations.

Normalised images in, logits at the image's size out. The first side is the published manner: the
baseline network (scripts/baselines.py) in eager float32, NCHW. Every clock is synchronized and
starts after a warm-up; the sides take turns.
"""

import copy
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from dataset.labels import NUM_CLASSES
from model.backbone import BACKBONES
from model.bisenet import BiSeNet
from model.inference.cost import convolution_macs, count_parameters, ptflops_macs
from model.inference.export import DeployedNetwork, OnnxNetwork, export_onnx, require_onnx
from model.inference.fold_batch_norm import fold_batch_norms
from model.loading import load_network
from model.preprocessing import INPUT_CONVENTIONS
from scripts.baselines import BaselineBiSeNet
from utils.benchmark.memory import PeakMemory
from utils.benchmark.timing import measure, percentiles_ms, ratio
from utils.files import output_folder, write_json
from utils.options.parser import positive_int
from utils.report.tables import markdown_table
from utils.training.checkpoint import read_checkpoint
from utils.training.environment import environment, processor
from utils.training.precision import PRECISIONS, choose_device, choose_precision

BASELINE = "baseline eager fp32"
BACKENDS = ("eager", "folded", "compiled", "onnx")


def add_arguments(parser) -> None:
    parser.add_argument(
        "--backbone", choices=BACKBONES, default="resnet18", help="of a network with random weights"
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="a network of yours instead; speed does not depend on the weights",
    )
    parser.add_argument(
        "--size",
        type=positive_int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        default=(512, 1024),
        help="of the images, multiples of 32",
    )
    parser.add_argument(
        "--batch-size", type=positive_int, default=1, help="images at a time; a camera has one"
    )
    parser.add_argument(
        "--precisions",
        choices=tuple(PRECISIONS),
        nargs="+",
        help="default: fp32, and what the hardware computes fastest in where that is another",
    )
    parser.add_argument(
        "--backends",
        choices=BACKENDS,
        nargs="+",
        default=BACKENDS,
        help=(
            "eager; folded: BatchNorm folded into the convolutions; compiled: that through"
            " torch.compile; onnx: that in ONNX Runtime, fp32"
        ),
    )
    parser.add_argument(
        "--repeats", type=positive_int, default=15, help="timed passes of each side"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto takes CUDA where there is a GPU",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the result, with the key ratio_best_vs_eager_fp32",
    )


class _Logits(nn.Module):
    """The network with a tensor as its output."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image).logits


def run(args) -> None:
    device = choose_device(args.device)
    fastest = choose_precision("auto", device)
    precisions = list(dict.fromkeys(args.precisions or ("fp32", fastest)))
    for precision in precisions:
        choose_precision(precision, device)
    if args.size[0] % 32 or args.size[1] % 32:
        raise ValueError(
            f"--size {args.size[0]} {args.size[1]}: the baseline network takes multiples of 32."
            " Choose the nearest ones."
        )
    if args.json:
        output_folder(args.json.absolute().parent)
    torch.manual_seed(0)
    network = (
        load_network(read_checkpoint(args.checkpoint), NUM_CLASSES)[0]
        if args.checkpoint
        else BiSeNet(NUM_CLASSES, args.backbone).eval()
    )
    backbone = network.architecture["backbone"]
    image = torch.randn(args.batch_size, 3, *args.size, device=device)

    baseline = BaselineBiSeNet(NUM_CLASSES, backbone).eval()
    cost = _cost(network, baseline, tuple(args.size))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        baseline.to(device)
        sides = {BASELINE: lambda: baseline(image)}
        left_out = {}
        for backend in args.backends:
            for precision in precisions if backend != "onnx" else ["fp32"]:
                name = f"{backend} {precision}"
                try:
                    sides[name] = _prepare(network, backend, precision, image, Path(folder))
                except (ValueError, RuntimeError) as error:  # no C++ compiler, no ONNX Runtime
                    left_out[name] = str(error).splitlines()[0]
        peaks = {}
        for name, side in tqdm(sides.items(), desc="memory", disable=None):
            side()
            with PeakMemory(device) as memory:
                side()
            peaks[name] = memory.bytes
        seconds = measure(sides, device, args.repeats)

    rows, results = [], {}
    for name, taken in seconds.items():
        latency = percentiles_ms(taken)
        results[name] = {
            "latency_ms": latency,
            "frames_per_second": 1000 * args.batch_size / latency["p50"],
        }
        results[name] |= {
            "peak_memory_mb": peaks[name] / 1e6,
            "ratio_vs_eager_fp32": ratio(seconds[BASELINE], taken),
        }
        cells = [
            *latency.values(),
            results[name]["frames_per_second"],
            results[name]["ratio_vs_eager_fp32"],
            results[name]["peak_memory_mb"],
        ]
        rows.append([name, *(f"{value:.1f}" for value in cells)])
    best = max(
        (name for name in results if name != BASELINE),
        key=lambda name: results[name]["ratio_vs_eager_fp32"],
        default=BASELINE,
    )
    where = {
        "device": str(device),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "circumstances": environment(),
    }
    print(
        f"\nBiSeNet, {backbone}, {args.batch_size} x {args.size[0]}x{args.size[1]}, on"
        f" {where['circumstances']['gpu'] or where['processor']}"
    )
    print(f"({where['circumstances']['cpu_threads']} threads, torch {torch.__version__})")
    print(
        "\n".join(f"{name.replace('_', ' ')}: {value:,.2f}" for name, value in cost.items()) + "\n"
    )
    print(
        markdown_table(
            [
                "configuration",
                "min ms",
                "median ms",
                "p90 ms",
                "p99 ms",
                "frames/s",
                "times as fast",
                "peak MB above weights",
            ],
            rows,
        )
    )
    for name, reason in left_out.items():
        print(f"left out: {name} ({reason})")
    if args.json:
        result = {
            "backbone": backbone,
            "size": list(args.size),
            "batch_size": args.batch_size,
            "repeats": args.repeats,
            **cost,
            "sides": results,
        }
        result |= {
            "left_out": left_out,
            "best": best,
            "ratio_best_vs_eager_fp32": results[best]["ratio_vs_eager_fp32"],
            **where,
        }
        write_json(args.json, result)


def _cost(network: nn.Module, baseline: nn.Module, size: tuple[int, int]) -> dict[str, float]:
    """Per image. The convolutions are counted in closed form; ptflops counts pointwise work and
    upsampling, too.
    """
    deployed = (
        count_parameters(network)
        - count_parameters(network.aux16)
        - count_parameters(network.aux32)
    )
    return {
        "parameters_million": deployed / 1e6,
        "convolution_gmac_closed_form": convolution_macs(network, (3, *size)) / 1e9,
        "convolution_gmac_closed_form_published_order": (
            convolution_macs(baseline, (3, *size)) / 1e9
        ),
        "gmac_ptflops": ptflops_macs(copy.deepcopy(network), (3, *size)) / 1e9,
    }


def _prepare(
    network: nn.Module, backend: str, precision: str, image: Tensor, folder: Path
) -> Callable[[], object]:
    """A function that passes ``image`` through ``network``. Raises ValueError or RuntimeError where
    ``backend`` is not to be had.
    """
    if backend == "onnx":
        require_onnx("onnx", "onnxscript", "onnxruntime")
        metadata = {
            "name": "benchmark",
            "num_classes": NUM_CLASSES,
            "input": INPUT_CONVENTIONS["imagenet"].as_dict(),
        }
        deployed = DeployedNetwork(
            network, INPUT_CONVENTIONS["imagenet"], normalize_inside=False, argmax_inside=False
        )
        export_onnx(deployed, folder / "network.onnx", metadata)
        exported, array = (
            OnnxNetwork(folder / "network.onnx", NUM_CLASSES, image.device),
            image.cpu().numpy(),
        )
        return lambda: exported.run(array)
    model = copy.deepcopy(network) if backend == "eager" else fold_batch_norms(network)
    model = (
        _Logits(model)
        .to(image.device, PRECISIONS[precision])
        .to(memory_format=torch.channels_last)
        .eval()
        .requires_grad_(False)
    )
    x = image.to(PRECISIONS[precision], memory_format=torch.channels_last)
    if backend == "compiled":
        model = _compile(model, x)
    return lambda: model(x)


def _compile(model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """Through inductor with frozen weights, which it may then lay out as the processor likes them.
    Compiled here, in about a minute.
    """
    import torch._inductor.config  # slow to import, and this side may not be asked for

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's remarks to its own developers
        torch._inductor.config.freezing = True
        torch._dynamo.reset()
        compiled = torch.compile(model)
        compiled(x)
    return compiled
