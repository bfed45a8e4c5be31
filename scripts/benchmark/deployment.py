"""Real time on this processor: frames per second of each way to deploy a network, and its mIoU.

A uint8 image in, trainIds out, one image at a time. The ways take turns. Prints the table of
docs/deployment.md.
"""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dataset.class_set import ClassSet
from dataset.class_set_file import recorded_class_set
from dataset.demo.scene import CAMERA, street
from dataset.evenly import evenly
from dataset.labels import IGNORE_INDEX
from dataset.listing import ImageList
from dataset.loader import LoaderOptions, evaluation_loader
from dataset.target import scored_images
from model.inference.export import DeployedNetwork, export_onnx
from model.inference.exported_network import OnnxNetwork, require_onnx
from model.inference.predictor import Predictor, load_predictor
from model.loading import load_network
from utils.benchmark.timing import measure, percentiles_ms, ratio
from utils.evaluation.evaluate import evaluate
from utils.evaluation.metrics import scores
from utils.files import write_json
from utils.options.parser import available_cores, positive_int
from utils.report.tables import markdown_table
from utils.training.checkpoint import read_checkpoint
from utils.training.environment import environment, processor
from utils.training.precision import PRECISIONS, choose_precision

SIZES = ((512, 1024), (1024, 2048))
EAGER, INT8 = "PyTorch, float32", "ONNX Runtime, int8"
NOT_MEASURED = "not measured"
CPU = torch.device("cpu")

Segment = Callable[[Tensor], Tensor]
"""(N, H, W, 3) uint8 images -> (N, H, W) uint8 trainIds."""


def add_arguments(parser) -> None:
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="FILE", help="last.pt of a run"
    )
    parser.add_argument(
        "--int8",
        type=Path,
        metavar="FILE",
        help="the same network in int8 (scripts.export --int8)",
    )
    parser.add_argument(
        "--score-on",
        type=Path,
        metavar="ROOT",
        help="labelled data: score every row (Cityscapes: val)",
    )
    parser.add_argument(
        "--score-layout",
        metavar="NAME|FILE",
        help="layout of --score-on: acdc, ... or a TOML file; default: recognized",
    )
    parser.add_argument(
        "--images",
        type=positive_int,
        metavar="N",
        help="score only N images, evenly spaced; default: all",
    )
    parser.add_argument(
        "--repeats", type=positive_int, default=10, help="timed images of each row and size"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the results and the hardware"
    )


def run(args) -> None:
    if args.images and not args.score_on:
        raise ValueError("--images limits --score-on ROOT: give both, or leave it out.")
    if args.score_layout and not args.score_on:
        raise ValueError("--score-layout describes --score-on ROOT: give both, or leave it out.")
    checkpoint = read_checkpoint(args.checkpoint)
    class_set = recorded_class_set(checkpoint)
    images = labelled_images(args, class_set) if args.score_on else None
    ways = prepare_ways(checkpoint, len(class_set), args.int8)
    seconds = {f"{height}x{width}": {} for height, width in SIZES}
    for (height, width), name in zip(SIZES, seconds, strict=True):
        image = torch.from_numpy(street(np.random.default_rng(0), CAMERA, (height, width))[0])[None]
        passes = {way: partial(segment, image) for way, segment in ways.items()}
        seconds[name] = measure(passes, CPU, args.repeats)
    mious = {}
    if images is not None:
        mious = {way: miou(segment, images, len(class_set)) for way, segment in ways.items()}

    results = summarize(seconds, mious)
    print(f"\n{processor()}, {available_cores()} cores, torch {torch.__version__}")
    if images is not None:
        print(f"mIoU of {checkpoint['name']} on {len(images)} images, in %")
    print(f"\n{results_table(results, list(seconds))}")
    if args.json:
        hardware = {"processor": processor(), "cores": available_cores()}
        write_json(args.json, {"rows": results, **hardware, "environment": environment()})


def labelled_images(args, class_set: ClassSet) -> ImageList:
    """The images to score, at most --images of them, evenly spaced."""
    images = scored_images(args.score_on, class_set, args.score_layout)
    return images.subset(evenly(range(len(images)), args.images)) if args.images else images


def prepare_ways(
    checkpoint: dict[str, Any], num_classes: int, int8: Path | None
) -> dict[str, Segment]:
    """The ways to deploy a checkpoint on this processor. Raises ValueError for a wrong ``int8``."""
    network, normalize = load_network(checkpoint, num_classes)
    ways: dict[str, Segment] = {EAGER: Predictor(network.eval(), normalize, CPU)}
    precision = choose_precision("auto", CPU)
    for name in dict.fromkeys(("fp32", precision)):
        way = f"PyTorch, BatchNorm folded, {'float32' if name == 'fp32' else name}"
        ways[way] = load_predictor(checkpoint, num_classes, CPU, PRECISIONS[name])
    require_onnx("onnx", "onnxscript", "onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        metadata = {"name": "", "num_classes": num_classes, "input": normalize.as_dict()}
        export_onnx(DeployedNetwork(network, normalize).eval(), path, metadata)
        ways["ONNX Runtime, float32"] = as_segment(OnnxNetwork(path, CPU))
    if int8 is not None:
        exported = OnnxNetwork(int8, CPU)
        exported.require_classes(num_classes)
        if exported.precision != "int8":
            raise ValueError(
                f"--int8 {int8} holds a network in {exported.precision}. Make an int8 file: python"
                " -m scripts.export CHECKPOINT --int8 --calibrate-on IMAGES"
            )
        require_same_network(int8, exported.metadata, checkpoint)
        ways[INT8] = as_segment(exported)
    return ways


def require_same_network(int8: Path, metadata: dict[str, Any], checkpoint: dict[str, Any]) -> None:
    """Raises ValueError where a file was exported from another checkpoint, by name or step.

    Seeds of one name are not told apart.
    """
    keys = [key for key in ("name", "step") if key in metadata]
    found, expected = ([each[key] for key in keys] for each in (metadata, checkpoint))
    if found != expected:
        raise ValueError(
            f"--int8 {int8} was exported from {' at step '.join(map(str, found))}, --checkpoint is"
            f" {' at step '.join(map(str, expected))}: a table of both would compare two networks."
            " Give the checkpoint that the file was made of, or export it again."
        )


def as_segment(network: OnnxNetwork) -> Segment:
    return lambda images: torch.from_numpy(network(images.numpy()))


def miou(segment: Segment, images: ImageList, num_classes: int) -> float:
    """mIoU in percent at full resolution."""
    batches = evaluation_loader(images, LoaderOptions(0, pin_memory=False))
    batches = tqdm(batches, unit="image", disable=None)
    return 100 * scores(evaluate(segment, batches, num_classes, IGNORE_INDEX).matrix).miou


def summarize(
    seconds: dict[str, dict[str, list[float]]], mious: dict[str, float]
) -> dict[str, dict[str, Any]]:
    """{way: latency, frames per second and ratio to EAGER of each size, and mIoU}."""
    results: dict[str, dict[str, Any]] = {}
    for size, turns in seconds.items():
        for way, found in turns.items():
            latency_ms = percentiles_ms(found)
            row = results.setdefault(way, {"miou_percent": mious.get(way)})
            row[size] = {
                "latency_ms": latency_ms,
                "frames_per_second": 1000 / latency_ms["p50"],
                "ratio_vs_eager_fp32": ratio(turns[EAGER], found),
            }
    return results


def results_table(results: dict[str, dict[str, Any]], sizes: Sequence[str]) -> str:
    """Rows of this processor, and those that it cannot measure."""
    head = ["on this processor"]
    head += [f"{unit}, {size}" for size in sizes for unit in ("frames/s", "times as fast")]
    rows = []
    for way, result in results.items():
        values = [
            f"{result[size][key]:.{digits}f}"
            for size in sizes
            for key, digits in (("frames_per_second", 2), ("ratio_vs_eager_fp32", 1))
        ]
        score = result["miou_percent"]
        rows.append([way, *values, NOT_MEASURED if score is None else f"{score:.2f}"])
    missing = [name for name in (INT8,) if name not in results]
    for name in [*missing, "a GPU (./scripts/check_gpu.sh)", "TensorRT"]:
        rows.append([name, *[NOT_MEASURED] * (2 * len(sizes) + 1)])
    return markdown_table([*head, "mIoU"], rows)
