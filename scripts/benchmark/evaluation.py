"""Scoring 1024x2048 images: this project's way beside the published manner (scripts/baselines.py),
in frames per second and score.

Both sides read PNGs from the disk, compute the same network's predictions and count the same
confusion matrix.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from dataset.cityscapes import cityscapes
from dataset.demo.scene import CAMERA, street
from dataset.labels import NUM_CLASSES
from dataset.listing import ImageList
from dataset.loader import Loading, evaluation_loader
from model.bisenet import BiSeNet
from model.inference.fold_batch_norm import for_inference
from model.inference.predictor import Predictor
from model.loading import load_network
from model.preprocessing import INPUT_CONVENTIONS
from scripts import baselines
from utils.benchmark.timing import ratio
from utils.evaluation.evaluate import Evaluation, evaluate
from utils.evaluation.metrics import scores
from utils.files import output_folder, write_json
from utils.options.groups import add_device_arguments, add_workers_argument
from utils.options.parser import positive_int
from utils.report.tables import markdown_table
from utils.training.checkpoint import read_checkpoint
from utils.training.environment import environment
from utils.training.precision import PRECISIONS, choose_device, choose_precision

SIZE = (1024, 2048)


def add_arguments(parser) -> None:
    parser.add_argument(
        "--cityscapes",
        type=Path,
        metavar="ROOT",
        help="score these images; by default streets are drawn at 1024x2048",
    )
    parser.add_argument("--split", choices=("train", "val"), default="val", help="of --cityscapes")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="score this network (ResNet-18, ImageNet input); by default random weights",
    )
    parser.add_argument(
        "--images",
        type=positive_int,
        default=6,
        help="number of images; more make the start of the workers matter less",
    )
    parser.add_argument(
        "--repeats", type=positive_int, default=3, help="turns that each side takes"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the result, with the key ratio_evaluation"
    )
    add_device_arguments(parser)
    add_workers_argument(parser)


def run(args) -> None:
    device = choose_device(args.device)
    precision = choose_precision(args.precision, device)
    if args.json:
        output_folder(args.json.absolute().parent)
    model, normalize = _network(args.checkpoint)
    baseline = baseline_of(model)
    with tempfile.TemporaryDirectory() as folder:
        listing = cityscapes(
            args.cityscapes or _draw_streets(Path(folder), args.images), args.split
        )
        listing = listing.subset(range(min(args.images, len(listing))))
        seconds = {"baseline": [], **{name: [] for name in dict.fromkeys(("fp32", precision))}}
        found = {}
        for _ in tqdm(range(args.repeats), desc="turns", disable=None):
            for side in seconds:
                if side == "fp32" != precision and seconds[side]:
                    continue  # once is enough to see that its score is the baseline's
                start = time.perf_counter()
                if side == "baseline":
                    found[side] = _baseline(baseline, listing)
                else:
                    predictor = Predictor(
                        for_inference(model, device, PRECISIONS[side]), normalize, device
                    )
                    batches = evaluation_loader(
                        listing, Loading(args.workers, pin_memory=device.type == "cuda")
                    )
                    found[side] = evaluate(predictor, batches, NUM_CLASSES)
                seconds[side].append(time.perf_counter() - start)

    rows, summary = (
        [],
        {
            "images": len(listing),
            "size": list(SIZE) if not args.cityscapes else "as found",
            "precision": precision,
        },
    )
    for side, taken in seconds.items():
        miou = 100 * scores(*found[side]).miou
        apart = (
            int((found[side].matrix - found["baseline"].matrix).abs().sum())
            / 2
            / int(found["baseline"].matrix.sum())
        )
        summary[side] = {
            "seconds_per_image": min(taken) / len(listing),
            "miou_percent": miou,
            "share_of_pixels_moved": apart,
        }
        summary[side] |= {
            "ratio": ratio(seconds["baseline"][: len(taken)], taken),
            "turns": len(taken),
        }
        rows.append(
            [
                side,
                f"{min(taken) / len(listing):.3f}",
                f"{summary[side]['ratio']:.2f}",
                f"{miou:.4f}",
                f"{apart:.1e}",
            ]
        )
    summary |= {
        "ratio_evaluation": summary[precision]["ratio"],
        "circumstances": environment(),
        "device": str(device),
        "workers": args.workers,
    }
    print(
        markdown_table(
            ["side", "s/image (best turn)", "times as fast (median)", "mIoU, %", "pixels moved"],
            rows,
        )
    )
    if args.json:
        write_json(args.json, summary)


def _network(checkpoint: Path | None):
    if checkpoint is None:
        torch.manual_seed(0)
        return BiSeNet(NUM_CLASSES).eval(), INPUT_CONVENTIONS["imagenet"]
    model, normalize = load_network(read_checkpoint(checkpoint), NUM_CLASSES)
    if normalize != INPUT_CONVENTIONS["imagenet"]:
        raise ValueError(
            f"{checkpoint} takes another input than ImageNet's, which the baseline feeds. Benchmark"
            " a checkpoint of --input imagenet."
        )
    return model, normalize


def baseline_of(model: BiSeNet) -> baselines.BaselineBiSeNet:
    """The baseline's network with the weights of ``model``: the same function."""
    names = {
        "spatial_path.": "spatial.",
        "context_path.backbone.": "resnet.",
        "context_path.arm": "attention",
        "fusion.fuse.": "fuse.",
        "fusion.conv": "fuse",
    }
    state = {}
    for key, value in model.state_dict().items():
        ours = next((prefix for prefix in names if key.startswith(prefix)), "")
        state[names.get(ours, "") + key.removeprefix(ours)] = value
    baseline = baselines.BaselineBiSeNet(
        model.architecture["num_classes"], model.architecture["backbone"]
    )
    state |= {
        f"resnet.{key}": value
        for key, value in baseline.resnet.state_dict().items()
        if key.startswith("fc.")
    }  # unused
    baseline.load_state_dict(state)
    return baseline.eval()


def _baseline(model, listing: ImageList) -> Evaluation:
    matrix = baselines.evaluate(
        model, [(frame.image, frame.label) for frame in listing], NUM_CLASSES
    )
    return Evaluation(torch.from_numpy(matrix), 0)


def _draw_streets(root: Path, count: int) -> Path:
    """A Cityscapes tree of ``count`` generated streets, split val."""
    for folder in ("leftImg8bit", "gtFine"):
        (root / folder / "val/town").mkdir(parents=True)
    for number in tqdm(range(count), desc="drawing streets", disable=None):
        image, label_ids = street(np.random.default_rng(number), CAMERA, SIZE)
        stem = f"town_{number:06}_000019"
        Image.fromarray(image).save(root / f"leftImg8bit/val/town/{stem}_leftImg8bit.png")
        Image.fromarray(label_ids).save(root / f"gtFine/val/town/{stem}_gtFine_labelIds.png")
    return root
