"""Scores checkpoints on a labelled split at full resolution: the paper's Tables I and II, the published rows beside ours.

A checkpoint is enough: it knows its backbone, its classes and its input. One confusion matrix is gathered over the whole split.
"""

import json
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from dataset.cityscapes import cityscapes
from dataset.gta5 import gta5
from dataset.labels import CLASS_NAMES, CLASS_SUBSETS, NUM_CLASSES, class_subset
from dataset.listing import Listing, check_listing, restrict
from dataset.loader import evaluation_loader
from model.discriminator import build_discriminator
from model.loading import load_network
from utils.arguments import add_device_arguments, clear_errors, new_parser
from utils.checkpoint import read_checkpoint
from utils.cost import parameters, ptflops_macs
from utils.evaluation import evaluate
from utils.metrics import scores
from utils.precision import autocast_for, choose_device, choose_precision
from utils.published import TABLE_1, TABLE_2
from utils.tables import markdown_table, percent

EPILOG = """examples:
  python eval.py checkpoints/*/last.pt --cityscapes $CITYSCAPES
  python eval.py checkpoints/ada/last.pt --cityscapes $CITYSCAPES --list dataset/splits/cityscapes_val_250.txt --json ada.json
"""
SIZE = (512, 1024)
"""The input that costs are stated for, as in Table II."""


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__, EPILOG)
    parser.add_argument("checkpoints", type=Path, nargs="+", metavar="CHECKPOINT", help="last.pt (or best.pt, which was chosen with labels)")
    data = parser.add_argument_group("data").add_mutually_exclusive_group(required=True)
    data.add_argument("--cityscapes", type=Path, metavar="ROOT", help="score on Cityscapes: folder with leftImg8bit/ and gtFine/")
    data.add_argument("--gta5", type=Path, metavar="ROOT", help="score on the source instead: folder with images/ and labels/")
    parser.add_argument("--split", choices=("train", "val"), default="val", help="of Cityscapes")
    parser.add_argument("--list", type=Path, metavar="FILE", help="score only the images that this file names, one a line")
    parser.add_argument(
        "--classes",
        nargs="+",
        default=["19"],
        metavar="SUBSET|NAME",
        help=f"classes that the means are taken over: one of {', '.join(CLASS_SUBSETS)}, or class names. IoUs come from the full matrix",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all scores and the confusion matrices, as fractions of 1")
    add_device_arguments(parser)
    return parser.parse_args(argv)


def score_checkpoint(path: Path, listing: Listing, classes: tuple[int, ...], args) -> dict:
    """One row: what the checkpoint is, its scores, its cost."""
    checkpoint = read_checkpoint(path)
    model, normalize = load_network(checkpoint, NUM_CLASSES)
    device = choose_device(args.device)
    precision = choose_precision(args.precision, device)
    loader = evaluation_loader(listing, args.workers, pin_memory=device.type == "cuda")
    bar = tqdm(loader, desc=checkpoint["name"], unit="image", disable=None, dynamic_ncols=True)
    result = evaluate(model.to(device), bar, normalize, NUM_CLASSES, device, autocast_for(device, precision))

    warnings = []
    seen = set(checkpoint["cityscapes_images"]) & set(listing.names)
    if seen:
        warnings.append(f"{checkpoint['name']} was trained or adapted on {len(seen)} of the {len(listing)} images it is scored on.")
    if checkpoint.get("chosen_with_labels"):
        warnings.append(f"{checkpoint['name']} ({path.name}) was chosen by its score on labelled validation images: report last.pt.")
    row = {"name": checkpoint["name"], "checkpoint": str(path), "step": checkpoint["step"], "precision": precision, "warnings": warnings}
    deployed = parameters(model) - parameters(model.aux16) - parameters(model.aux32)  # these heads serve training only
    row |= {"architecture": checkpoint["architecture"], "model_parameters": deployed}
    row |= {"model_gmac": ptflops_macs(model.cpu(), (3, *SIZE)) / 1e9}
    if "discriminator" in checkpoint:
        discriminator = build_discriminator(checkpoint["discriminator"], NUM_CLASSES)
        row |= {"discriminator": checkpoint["discriminator"], "discriminator_parameters": parameters(discriminator)}
        row |= {"discriminator_gmac": ptflops_macs(discriminator, (NUM_CLASSES, *SIZE)) / 1e9}
    return row | asdict(scores(result.matrix, result.ignored, classes)) | {"ignored": result.ignored, "matrix": result.matrix.tolist()}


def table_1(rows: list[dict], classes: tuple[int, ...]) -> str:
    """IoU of each class."""
    header = ["IoU, %", *(CLASS_NAMES[c] for c in classes)]
    published = [[f"{name} (published)", *(f"{iou[c]:.2f}" for c in classes)] for name, iou in TABLE_1.items()]
    return markdown_table(header, [*published, *([row["name"], *(percent(row["iou"][c]) for c in classes)] for row in rows)])


def table_2(rows: list[dict], classes: tuple[int, ...]) -> str:
    """Accuracies, mIoU and costs. Published means are over 19 classes: beside a subset they would mislead, and are left out."""
    header = ["%", "pixel acc.", "pixel acc. incl. void", "mean class acc.", "mIoU", "classes"]
    header += ["discriminator", "its MACs", "deployed model", "its MACs"]
    lines = []
    for row in TABLE_2 if len(classes) == NUM_CLASSES else ():
        accuracies = ["-" if value is None else f"{value:.2f}" for value in (row.pixel_accuracy_with_void, row.mean_class_accuracy)]
        costs = [row.discriminator_parameters, row.discriminator_macs, "-", "-"]
        lines.append([f"{row.name} (published)", "-", *accuracies, f"{row.miou:.2f}", "19", *costs])
    for row in rows:
        measures = ("pixel_accuracy", "pixel_accuracy_with_void", "mean_class_accuracy", "miou")
        costs = ["-", "-"]
        if "discriminator" in row:
            costs = [f"{row['discriminator_parameters'] / 1e6:.2f} M", f"{row['discriminator_gmac']:.2f} GMac"]
        costs += [f"{row['model_parameters'] / 1e6:.2f} M", f"{row['model_gmac']:.2f} GMac"]
        lines.append([row["name"], *(percent(row[measure]) for measure in measures), str(row["averaged"]), *costs])
    return markdown_table(header, lines)


def main(args) -> None:
    classes = class_subset(args.classes)
    listing = restrict(gta5(args.gta5) if args.gta5 else cityscapes(args.cityscapes, args.split), args.list)
    check_listing(listing)
    rows = [score_checkpoint(path, listing, classes, args) for path in args.checkpoints]
    place = f"{listing.root}" + ("" if args.gta5 else f", split {args.split}")
    print(f"\n{len(listing)} images of {place}, full resolution, {rows[0]['precision']}. Rows marked (published) are the paper's, not ours.")
    print("\nTable I", table_1(rows, classes), "\nTable II (MACs at 512x1024 by ptflops)", table_2(rows, classes), sep="\n")
    for warning in [warning for row in rows for warning in row["warnings"]]:
        print(f"WARNING: {warning}")
    if args.json:
        args.json.write_text(
            json.dumps({"images": len(listing), "split": args.split, "classes": [CLASS_NAMES[c] for c in classes], "rows": rows}) + "\n"
        )


if __name__ == "__main__":
    with clear_errors():
        main(parse_arguments())
