"""Scoring 1024x2048 images: frames per second and scores, against scripts/baselines.py.

Both sides read PNGs from the disk, predict with the same network, and count the same confusion
matrix.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from dataset.cityscapes import cityscapes
from dataset.demo.scene import CAMERA, street
from dataset.labels import NUM_CLASSES
from dataset.listing import ImageList
from dataset.loader import LoaderOptions, evaluation_loader
from model.bisenet import BiSeNet
from model.inference.fold_batch_norm import for_inference
from model.inference.predictor import Predictor
from model.loading import load_network
from model.preprocessing import INPUT_CONVENTIONS, InputNormalization
from scripts import baselines
from scripts.benchmark.baseline import require_baseline
from utils.benchmark.timing import ratio
from utils.evaluation.evaluate import Evaluation, evaluate
from utils.evaluation.metrics import scores
from utils.files import write_json
from utils.options.groups import add_device_arguments, add_workers_argument
from utils.options.parser import positive_int
from utils.report.tables import markdown_table
from utils.training.checkpoint import read_checkpoint
from utils.training.environment import environment
from utils.training.precision import PRECISIONS, choose_device, choose_precision

SIZE = (1024, 2048)
"""(height, width) of Cityscapes."""
BASELINE = "baseline"


def add_arguments(parser) -> None:
    parser.add_argument(
        "--cityscapes",
        type=Path,
        metavar="ROOT",
        help="images to score; default: generated streets of 1024x2048",
    )
    parser.add_argument(
        "--split", choices=("train", "val"), help="split of --cityscapes; default: val"
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="network to score (ImageNet input); default: ResNet-18 with random weights",
    )
    parser.add_argument(
        "--images",
        type=positive_int,
        default=6,
        help="number of images; with more, the start of the workers matters less",
    )
    parser.add_argument("--repeats", type=positive_int, default=3, help="repetitions of each side")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the results, with the key ratio_evaluation"
    )
    add_device_arguments(parser)
    add_workers_argument(parser)


def run(args) -> None:
    if args.split and not args.cityscapes:
        raise ValueError("--split is of --cityscapes ROOT: give both, or leave it out.")
    device = choose_device(args.device)
    precision = choose_precision(args.precision, device)
    model, normalize = load_imagenet_network(args.checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        root = args.cityscapes or draw_streets(Path(folder), args.images)
        listing = cityscapes(root, args.split or "val")
        listing = listing.select(listing.names[: args.images], "--images")
        sides = build_sides(model, normalize, listing, precision, device, args.workers)
        # A single turn in fp32 shows that its score is that of the baseline.
        once = ["fp32"] if precision != "fp32" else []
        seconds, evaluations = time_sides(sides, args.repeats, once)

    results = summarize(seconds, evaluations, len(listing))
    summary = {
        "images": len(listing),
        "size": list(SIZE) if not args.cityscapes else "as found",
        "precision": precision,
        **results,
        "ratio_evaluation": results[precision]["ratio"],
        "environment": environment(),
        "device": str(device),
        "baseline_device": "cpu",
        "workers": args.workers,
    }
    print(results_table(results), *device_notes(device), sep="\n")
    if args.json:
        write_json(args.json, summary)


def device_notes(device: torch.device) -> list[str]:
    """What the ratios compare where ours does not compute on the CPU, as the baseline does."""
    if device.type == "cpu":
        return []
    return [
        f"NOTE: the baseline computes on the CPU and ours on {device}: the ratios compare the two."
        " Both on one GPU: ./scripts/check_gpu.sh"
    ]


def load_imagenet_network(checkpoint: Path | None) -> tuple[BiSeNet, InputNormalization]:
    """Network of a checkpoint, or with random weights; raises ValueError unless input imagenet."""
    if checkpoint is None:
        torch.manual_seed(0)
        return BiSeNet(NUM_CLASSES).eval(), INPUT_CONVENTIONS["imagenet"]
    model, normalize = load_network(read_checkpoint(checkpoint), NUM_CLASSES)
    require_baseline(model.architecture, str(checkpoint))
    if normalize != INPUT_CONVENTIONS["imagenet"]:
        raise ValueError(
            f"{checkpoint} has another input than ImageNet's, which the baseline uses. Benchmark a"
            " checkpoint of --input imagenet."
        )
    return model, normalize


def baseline_of(model: BiSeNet) -> baselines.BaselineBiSeNet:
    """Baseline network with the weights of ``model``: the same function."""
    names = {
        "spatial_path.": "spatial.",
        "context_path.backbone.": "resnet.",
        "context_path.arm": "attention",
        "fusion.fuse.": "fuse.",
        "fusion.conv": "fuse",
    }
    state = {}
    for key, value in model.state_dict().items():
        prefix = next((prefix for prefix in names if key.startswith(prefix)), "")
        state[names.get(prefix, "") + key.removeprefix(prefix)] = value
    baseline = baselines.BaselineBiSeNet(
        model.architecture["num_classes"], model.architecture["backbone"]
    )
    # The baseline keeps the classifier of the ResNet, which is not used.
    for key, value in baseline.resnet.fc.state_dict().items():
        state[f"resnet.fc.{key}"] = value
    baseline.load_state_dict(state)
    return baseline.eval()


Side = Callable[[], Evaluation]
"""Scores all images."""


def build_sides(
    model: BiSeNet,
    normalize: InputNormalization,
    listing: ImageList,
    precision: str,
    device: torch.device,
    workers: int,
) -> dict[str, Side]:
    """The baseline, and this project in fp32 and in ``precision``."""
    baseline = baseline_of(model)

    def score_baseline() -> Evaluation:
        pairs = [(frame.image, frame.label) for frame in listing]
        matrix = baselines.evaluate(baseline, pairs, NUM_CLASSES)
        return Evaluation(torch.from_numpy(matrix), 0)

    def score(precision: str) -> Evaluation:
        network = for_inference(model, device, PRECISIONS[precision])
        predictor = Predictor(network, normalize, device)
        batches = evaluation_loader(listing, LoaderOptions(workers, device.type == "cuda"))
        return evaluate(predictor, batches, NUM_CLASSES)

    return {BASELINE: score_baseline} | {
        name: partial(score, name) for name in dict.fromkeys(("fp32", precision))
    }


def time_sides(
    sides: dict[str, Side], repeats: int, once: Sequence[str]
) -> tuple[dict[str, list[float]], dict[str, Evaluation]]:
    """Seconds of each turn, and the result, of each side; the sides take turns.

    Sides in ``once`` have a single turn.
    """
    seconds, evaluations = {name: [] for name in sides}, {}
    for turn in tqdm(range(repeats), desc="turns", disable=None):
        for name, score in sides.items():
            if turn and name in once:
                continue
            start = time.perf_counter()
            evaluations[name] = score()
            seconds[name].append(time.perf_counter() - start)
    return seconds, evaluations


def summarize(
    seconds: dict[str, list[float]], evaluations: dict[str, Evaluation], images: int
) -> dict[str, dict[str, Any]]:
    """Time, score, and difference from the baseline, of each side.

    Of the pixels that changed, those that cancel in the confusion matrix are not counted.
    """
    expected, results = evaluations[BASELINE].matrix, {}
    for name, turns in seconds.items():
        difference = int((evaluations[name].matrix - expected).abs().sum()) / 2
        results[name] = {
            "seconds_per_image": min(turns) / images,
            "miou_percent": 100 * scores(*evaluations[name]).miou,
            "fraction_of_pixels_changed": difference / int(expected.sum()),
            "ratio": ratio(seconds[BASELINE][: len(turns)], turns),
            "turns": len(turns),
        }
    return results


def results_table(results: dict[str, dict[str, Any]]) -> str:
    head = ["side", "s/image (best turn)", "times as fast (median)", "mIoU, %"]
    head += ["pixels changed, at least"]
    rows = [
        [
            name,
            f"{result['seconds_per_image']:.3f}",
            f"{result['ratio']:.2f}",
            f"{result['miou_percent']:.4f}",
            f"{result['fraction_of_pixels_changed']:.1e}",
        ]
        for name, result in results.items()
    ]
    return markdown_table(head, rows)


def draw_streets(root: Path, count: int) -> Path:
    """Writes generated streets in the layout of Cityscapes, split val; returns ``root``."""
    for folder in ("leftImg8bit", "gtFine"):
        (root / folder / "val/town").mkdir(parents=True)
    for number in tqdm(range(count), desc="drawing streets", disable=None):
        image, label_ids = street(np.random.default_rng(number), CAMERA, SIZE)
        stem = f"town_{number:06}_000019"
        Image.fromarray(image).save(root / f"leftImg8bit/val/town/{stem}_leftImg8bit.png")
        Image.fromarray(label_ids).save(root / f"gtFine/val/town/{stem}_gtFine_labelIds.png")
    return root
