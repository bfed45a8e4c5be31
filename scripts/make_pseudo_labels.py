"""Writes a network's surest predictions on unlabelled images as labels that training reads like
ground truth.

Of each class the most confident pixels are kept (class-balanced thresholds: Zou et al., ECCV 2018),
the others are ignored. Labels of the target are never opened. The labels land in the tree of
Cityscapes under a root of their own, beside a record of how they were made; train on them with
--pseudo-labels ROOT. An interrupted run goes on where it stopped when the same command is given
again.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from dataset.cityscapes import cityscapes
from dataset.labels import CLASS_NAMES, LABEL_ID_OF, NUM_CLASSES
from dataset.listing import ImageList, select_by_list
from dataset.loader import Loading, evaluation_loader
from dataset.target import label_path, unlabelled_images
from model.inference.predictor import load_predictor
from model.inference.tta import TTA_PRESETS
from model.uda.class_balanced_threshold import ConfidenceHistogram, confidence_bins, confidence_of
from utils.files import output_folder, write_json, write_png
from utils.options.groups import (
    add_device_arguments,
    add_unlabelled_arguments,
    add_workers_argument,
)
from utils.options.parser import new_parser, probability, user_errors_without_traceback
from utils.report.tables import markdown_table, percent
from utils.training.checkpoint import read_checkpoint
from utils.training.environment import environment
from utils.training.precision import PRECISIONS, choose_device, choose_precision

EPILOG = """examples:
  python -m scripts.make_pseudo_labels checkpoints/ada/last.pt --cityscapes $CITYSCAPES --output pseudo --keep 0.5
  python -m scripts.make_pseudo_labels checkpoints/ada/last.pt --target-images "dashcam/**/*.jpg" --output pseudo
a whole prediction instead, to distil a large network into a small one
  python -m scripts.make_pseudo_labels checkpoints/large/last.pt --cityscapes $CITYSCAPES --output pseudo --keep 1 --tta multiscale
"""


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__, EPILOG)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="last.pt of a run")
    add_unlabelled_arguments(parser)
    parser.add_argument(
        "--list",
        type=Path,
        metavar="FILE",
        help="label only the images that this file names, one a line",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="ROOT",
        required=True,
        help="root for the labels: ROOT/gtFine/SPLIT/CITY/*_gtFine_labelIds.png",
    )
    choice = parser.add_argument_group("which pixels are labelled")
    choice.add_argument(
        "--keep",
        type=probability,
        default=0.5,
        metavar="FRACTION",
        help="of the pixels predicted as a class, the most confident; more labels, more wrong ones",
    )
    choice.add_argument(
        "--min-confidence",
        type=probability,
        default=0.0,
        metavar="P",
        help="and none whose probability is lower, however few are left",
    )
    choice.add_argument(
        "--tta",
        choices=tuple(TTA_PRESETS),
        help="average the probabilities of an image and its mirror image, or of both at six scales",
    )
    add_device_arguments(parser)
    add_workers_argument(parser)
    args = parser.parse_args(argv)
    if args.keep == 0 or args.min_confidence == 1:
        parser.error(
            "--keep 0 and --min-confidence 1 would label nothing; expected a --keep above 0 and a"
            " --min-confidence below 1"
        )
    if args.target_images and args.split != "train":
        parser.error("--split is of Cityscapes; --target-images are labelled as split train")
    return args


class Labeller:
    """A checkpoint's network, ready to say of every pixel what it is and how sure that is."""

    def __init__(self, checkpoint: dict[str, Any], args):
        self.device = choose_device(args.device)
        self.precision = choose_precision(args.precision, self.device)
        views = TTA_PRESETS.get(args.tta, ())
        self.predictor = load_predictor(
            checkpoint, NUM_CLASSES, self.device, PRECISIONS[self.precision], views
        )
        self.workers = args.workers

    def __call__(self, listing: ImageList, doing: str) -> Iterator[tuple[str, Tensor, Tensor]]:
        """For every image its name, and of every pixel the class and the bin of its confidence, (H,
        W) each, on the device.
        """
        loader = evaluation_loader(listing, Loading(self.workers, self.device.type == "cuda"))
        for batch in tqdm(loader, desc=doing, unit="image", disable=None, dynamic_ncols=True):
            scores = self.predictor.class_scores(batch.image)
            prediction, bins = confidence_bins(
                scores if self.predictor.views else scores.softmax(1)
            )
            yield listing[int(batch.index[0])].name, prediction[0], bins[0]


def settings_of(args, listing: ImageList, precision: str) -> dict[str, Any]:
    """All that the labels depend on."""
    with open(args.checkpoint, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    choice = {
        "keep": args.keep,
        "min_confidence": args.min_confidence,
        "tta": args.tta,
        "precision": precision,
    }
    return {
        "checkpoint_sha256": digest,
        "split": args.split,
        "images": listing.fingerprint(),
        **choice,
    }


def warnings_of(args, checkpoint: dict[str, Any], listing: ImageList) -> list[str]:
    """What whoever uses or scores these labels must know."""
    warnings = [
        f"What is trained on these labels has been adapted on {len(listing)} images: its scores on"
        " these images are not to be reported."
    ]
    if args.split == "val":
        warnings.append("--split val labels the very images that are scored (transductive).")
    if checkpoint.get("chosen_with_labels"):
        warnings.append(
            f"{checkpoint['name']} ({args.checkpoint.name}) was chosen by its score on labelled"
            " validation images: use last.pt."
        )
    seen = set(checkpoint["seen_images"]) & set(listing.names)
    if seen and checkpoint["settings"].get("train_on") == "cityscapes":
        warnings.append(
            f"{checkpoint['name']} was trained on the true labels of {len(seen)} of these images:"
            " this is no unsupervised adaptation."
        )
    return warnings


def read_record(path: Path, labels: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The record of an interrupted run that this one continues, or None. Raises FileExistsError for
    labels that were made otherwise.
    """
    if not path.exists():
        if labels.exists():
            raise FileExistsError(
                f"{labels} exists without {path.name}: these labels were not made here, and stay."
                " Choose another --output."
            )
        return None
    record = json.loads(path.read_text())
    before = record["settings"]
    changed = [
        f"{name}: {before.get(name)} -> {value}"
        for name, value in settings.items()
        if before.get(name) != value
    ]
    if changed:
        raise FileExistsError(
            f"{path.parent} holds labels made otherwise ({'; '.join(changed)}). Choose another"
            " --output, or delete these."
        )
    return record


def measure(
    labeller: Labeller, listing: ImageList, keep: float, min_confidence: float
) -> dict[str, dict[str, Any]]:
    """The first pass: for every class its threshold, as a bin and as a probability, and what it
    keeps.
    """
    histogram = ConfidenceHistogram(NUM_CLASSES)
    for _, prediction, bins in labeller(listing, "measuring"):
        histogram.add(prediction, bins)
    thresholds = histogram.thresholds(keep, min_confidence)
    columns = (
        thresholds.tolist(),
        confidence_of(thresholds).tolist(),
        histogram.counts.sum(1).tolist(),
        histogram.kept(thresholds).tolist(),
    )
    return {
        name: {
            "predicted_pixels": predicted,
            "kept_pixels": kept,
            "kept_fraction": kept / predicted if predicted else None,
            "threshold": confidence if predicted else None,
            "threshold_bin": place,
        }
        for name, place, confidence, predicted, kept in zip(CLASS_NAMES, *columns, strict=True)
    }


def write_labels(
    labeller: Labeller, listing: ImageList, thresholds: Tensor, output: Path, split: str
) -> int:
    """The second pass: one PNG of labelIds for every image that has none yet. Returns how many were
    written.
    """
    missing = [
        index
        for index, name in enumerate(listing.names)
        if not (output / label_path(name, split)).exists()
    ]
    if not missing:
        return 0
    thresholds = thresholds.to(labeller.device)
    for name, prediction, bins in labeller(listing.subset(missing), "labelling"):
        sure = (bins >= thresholds[prediction.long()]).cpu().numpy()  # (H, W)
        path = output / label_path(name, split)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, LABEL_ID_OF[prediction.cpu().numpy()] * sure)  # labelId 0 is ignored
    return len(missing)


def table(classes: dict[str, dict[str, Any]]) -> str:
    """What was kept of each class, as people read it."""
    rows, total = [], sum(metadata["predicted_pixels"] for metadata in classes.values())
    for name, metadata in classes.items():
        share_of_all = percent(metadata["predicted_pixels"] / total)
        kept = (
            ["-", "-"]
            if metadata["threshold"] is None
            else [f"{metadata['threshold']:.6f}", percent(metadata["kept_fraction"])]
        )
        rows.append([name, share_of_all, *kept])
    return markdown_table(["class", "% of pixels predicted", "threshold", "% of these kept"], rows)


def main(args) -> None:
    listing = (
        unlabelled_images(args.target_images)
        if args.target_images
        else cityscapes(args.cityscapes, args.split, labels=False)
    )
    listing = select_by_list(listing, args.list)
    if args.cityscapes and args.output.resolve() == args.cityscapes.resolve():
        raise ValueError(
            f"--output {args.output} is the root of the data set: these labels would pass for its"
            " ground truth. Choose another folder."
        )
    checkpoint = read_checkpoint(args.checkpoint)
    labeller = Labeller(checkpoint, args)
    settings, warnings = (
        settings_of(args, listing, labeller.precision),
        warnings_of(args, checkpoint, listing),
    )
    path = output_folder(args.output) / f"pseudo_labels-{args.split}.json"
    record = read_record(path, args.output / f"gtFine/{args.split}", settings)
    if record is None:
        record = {
            "name": checkpoint["name"],
            "checkpoint": str(args.checkpoint),
            "step": checkpoint["step"],
            "warnings": warnings,
        }
        record |= {
            "argv": sys.argv,
            "settings": settings,
            "circumstances": environment(),
            "complete": False,
        }
        record |= {
            "classes": measure(labeller, listing, args.keep, args.min_confidence),
            "images": listing.names,
        }
        write_json(path, record)
    thresholds = torch.tensor(
        [metadata["threshold_bin"] for metadata in record["classes"].values()]
    )
    written = write_labels(labeller, listing, thresholds, args.output, args.split)
    write_json(path, record | {"complete": True})
    print(f"\n{table(record['classes'])}\n")
    print(
        f"{args.output}: {written} labels written now, {len(listing) - written} there already;"
        f" {path.name} says how."
    )
    print(*(f"WARNING: {warning}" for warning in warnings), sep="\n")
    print(f"Train on them with --pseudo-labels {args.output}")


if __name__ == "__main__":
    with user_errors_without_traceback():
        try:
            main(parse_arguments())
        except KeyboardInterrupt:
            sys.exit(
                "\nInterrupted. The labels written are whole: give the same command again and it"
                " goes on from there."
            )
