"""Writes confident predictions on unlabelled images as pseudo-labels for training.

The most confident pixels of each class are kept (class-balanced thresholds: Zou et al., ECCV 2018),
the others are ignored. Labels of the target are never opened. The output folder has the layout of
Cityscapes, and a record of how the labels were made; train with --pseudo-labels ROOT.

Several checkpoints, such as seeds, are an ensemble: their mean probabilities are the prediction,
and the confidence of a pixel is multiplied by the fraction of them that agree with it.

An interrupted run continues when the same command is given again.
"""

if not __package__:  # started by its path: nothing of the project can be imported
    raise SystemExit(
        "error: start it in the project's folder: python -m scripts.make_pseudo_labels"
    )

import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dataset.class_set_file import recorded_class_set
from dataset.label_format import LabelFormat, prediction_format, stored_value_of
from dataset.labels import IGNORE_INDEX
from dataset.listing import ImageList, largest_image
from dataset.loader import LoaderOptions, evaluation_loader
from dataset.pseudo_labels import label_path
from dataset.target_flags import TargetFlags
from model.inference.ensemble import Ensemble
from model.inference.predictor import Predictor, load_predictor
from model.inference.tta import TTA_PRESETS
from model.uda.class_balanced_threshold import ConfidenceHistogram, confidence_bins, confidence_of
from utils.benchmark.memory import check_memory
from utils.evaluation.comparability import seen_images
from utils.files import output_folder, read_json_object, write_json, write_png
from utils.options.checks import require_layouts
from utils.options.groups import (
    add_device_arguments,
    add_unlabelled_arguments,
    add_workers_argument,
)
from utils.options.parser import (
    from_arguments,
    new_parser,
    probability,
    user_errors_without_traceback,
)
from utils.report.tables import markdown_table, percent
from utils.training.checkpoint import read_checkpoint
from utils.training.environment import environment
from utils.training.precision import PRECISIONS, choose_device, choose_precision
from utils.training.provenance import inherited, labelled_images

EPILOG = """examples:
  python -m scripts.make_pseudo_labels checkpoints/ada/last.pt --cityscapes $CITYSCAPES \\
      --output pseudo --keep 0.5
  python -m scripts.make_pseudo_labels checkpoints/ada/last.pt --target "dashcam/**/*.jpg" \\
      --output pseudo
  an ensemble of three seeds:
    python -m scripts.make_pseudo_labels checkpoints/seed{0,1,2}/last.pt \\
        --cityscapes $CITYSCAPES --output pseudo
  all pixels, to distill a large network into a small one:
    python -m scripts.make_pseudo_labels checkpoints/large/last.pt --cityscapes $CITYSCAPES \\
        --output pseudo --keep 1 --tta multiscale
"""


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__, EPILOG)
    parser.add_argument(
        "checkpoints",
        type=Path,
        nargs="+",
        metavar="CHECKPOINT",
        help="last.pt of a run; of several runs: their ensemble",
    )
    add_unlabelled_arguments(parser)
    parser.add_argument(
        "--list",
        type=Path,
        metavar="FILE",
        help="label only the images named in this file, one per line",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="ROOT",
        required=True,
        help="folder for the labels: ROOT/gtFine/SPLIT/NAME_gtFine_labelIds.png (or labelTrainIds)",
    )
    add_selection_arguments(parser)
    add_device_arguments(parser)
    add_workers_argument(parser)
    args = parser.parse_args(argv)
    require_layouts(parser, args.target, args.target_layout)
    if args.keep == 0 or args.min_confidence == 1:
        parser.error(
            "--keep 0 and --min-confidence 1 would label nothing; expected a --keep above 0 and a"
            " --min-confidence below 1"
        )
    if args.split != "train" and from_arguments(TargetFlags, vars(args)).scored_root is None:
        parser.error(
            "--split is of a known data set, or of --target-layout; plain images are labelled as"
            " split train"
        )
    return args


def add_selection_arguments(parser) -> None:
    group = parser.add_argument_group("selection of pixels")
    group.add_argument(
        "--keep",
        type=probability,
        default=0.5,
        metavar="FRACTION",
        help="fraction of the pixels predicted as a class that is kept, the most confident",
    )
    group.add_argument(
        "--min-confidence",
        type=probability,
        default=0.0,
        metavar="P",
        help="lowest probability of a kept pixel, whatever --keep says",
    )
    group.add_argument(
        "--tta",
        choices=tuple(TTA_PRESETS),
        help="average the predictions of the image and its mirror image, or of both at six scales",
    )


class PseudoLabeller:
    """Predicts the class of each pixel of a list of images, and its confidence.

    ``label_format``: how the labels are stored.
    """

    def __init__(self, members: Sequence[Predictor], workers: int, label_format: LabelFormat):
        self.ensemble, self.workers, self.label_format = Ensemble(members), workers, label_format
        self.device = members[0].device

    def __call__(self, listing: ImageList, title: str) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yields the name of each image, its classes and its confidence bins, (H, W) on the device.

        ``title``: of the progress bar.
        """
        loader = evaluation_loader(listing, LoaderOptions(self.workers, self.device.type == "cuda"))
        for batch in tqdm(loader, desc=title, unit="image", disable=None, dynamic_ncols=True):
            prediction, bins = confidence_bins(*self.ensemble(batch.image))
            yield listing[int(batch.index[0])].name, prediction[0], bins[0]


def one_or_all(values: list) -> Any:
    """The value of a single checkpoint itself, as records of older versions have it; or a list."""
    return values[0] if len(values) == 1 else values


def read_members(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The checkpoints of the ensemble. Raises ValueError for other classes, and for repeats."""
    files = [path.resolve() for path in paths]
    repeated = [path for path in paths if files.count(path.resolve()) > 1]
    if repeated:
        raise ValueError(
            f"{repeated[0]} is given {files.count(repeated[0].resolve())} times: an ensemble needs"
            " different networks, such as seeds. Give each checkpoint once."
        )
    members = [read_checkpoint(path) for path in paths]
    first, *others = (recorded_class_set(member).names for member in members)
    for path, other in zip(paths[1:], others, strict=True):
        if other != first:
            raise ValueError(
                f"{paths[0]} and {path} have other classes: {', '.join(first)} and"
                f" {', '.join(other)}. An ensemble needs networks of the same classes."
            )
    return members


def label_settings(args, listing: ImageList, precision: str) -> dict[str, Any]:
    """All settings that the labels depend on."""
    digests = []
    for path in args.checkpoints:
        with open(path, "rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return {
        "checkpoint_sha256": one_or_all(digests),
        "split": args.split,
        "images": listing.fingerprint(),
        "keep": args.keep,
        "min_confidence": args.min_confidence,
        "tta": args.tta,
        "precision": precision,
    }


def label_warnings(args, members: list[dict[str, Any]], listing: ImageList) -> list[str]:
    """Warnings for users of the labels and of networks trained on them."""
    warnings = [
        f"Networks trained on these labels were adapted on {len(listing)} images: do not report"
        " their scores on these images."
    ]
    if args.split == "val":
        warnings.append("--split val labels the images of the evaluation (transductive).")
    for path, checkpoint in zip(args.checkpoints, members, strict=True):
        if checkpoint.get("chosen_with_labels"):
            warnings.append(
                f"{checkpoint['name']} ({path.name}) was chosen by its score on labelled"
                " validation images: use last.pt."
            )
        known = seen_images(labelled_images(checkpoint), listing.identities)
        if known:
            warnings.append(
                f"{checkpoint['name']} was trained on the true labels of {known} of these images,"
                " or learned from a network that was: this is not unsupervised adaptation."
            )
    return warnings


def read_record(path: Path, labels: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Reads the record of an interrupted run that this run continues; None if there is none.

    Raises FileExistsError for labels that were made with other settings, or not by this script.
    """
    if not path.exists():
        if labels.exists():
            raise FileExistsError(
                f"{labels} exists without {path.name}: these labels were not made here and are"
                " kept. Choose another --output."
            )
        return None
    expected = "the record of pseudo-labels; delete it and its labels to make them again"
    record = read_json_object(path, ("settings", "classes"), expected)
    before = record["settings"]
    changed = [
        f"{name}: {before.get(name)} -> {value}"
        for name, value in settings.items()
        if before.get(name) != value
    ]
    if changed:
        raise FileExistsError(
            f"{path.parent} holds labels made with other settings ({'; '.join(changed)}). Choose"
            " another --output, or delete these labels."
        )
    return record


def measure_thresholds(
    labeller: PseudoLabeller, listing: ImageList, keep: float, min_confidence: float
) -> dict[str, dict[str, Any]]:
    """First pass over the images: the threshold of each class, and how many pixels it keeps.

    Raises ValueError if no pixel is kept.
    """
    names = labeller.label_format.class_set.names
    histogram = ConfidenceHistogram(len(names))
    for _, prediction, bins in labeller(listing, "measuring"):
        histogram.add(prediction, bins)
    thresholds = histogram.thresholds(keep, min_confidence)  # (C,), bins
    kept_pixels = histogram.kept(thresholds)  # (C,)
    if not kept_pixels.any():
        raise ValueError(
            f"--min-confidence {min_confidence:g} keeps no pixel of {len(listing)} images: the"
            f" largest confidence is {histogram.largest_confidence():.6f}. Nothing was written."
            " Give a lower one, or leave it out."
        )
    columns = (
        thresholds.tolist(),
        confidence_of(thresholds).tolist(),
        histogram.counts.sum(1).tolist(),
        kept_pixels.tolist(),
    )
    return {
        name: {
            "predicted_pixels": predicted,
            "kept_pixels": kept,
            "kept_fraction": kept / predicted if predicted else None,
            "threshold": confidence if predicted else None,
            "threshold_bin": threshold_bin,
        }
        for name, threshold_bin, confidence, predicted, kept in zip(names, *columns, strict=True)
    }


def write_labels(
    labeller: PseudoLabeller, listing: ImageList, thresholds: Tensor, output: Path, split: str
) -> int:
    """Second pass: writes a label PNG for each image without one; returns their number.

    A label older than its image counts as none: frames of a video that are cut anew have the names
    of the earlier ones. ``thresholds``: (C,) int64, the lowest bin that is kept of each class.
    """
    label_format = labeller.label_format
    paths = {name: output / label_path(name, split, label_format) for name in listing.names}
    stale = {
        path
        for path, frame in zip(paths.values(), listing, strict=True)
        if path.exists() and path.stat().st_mtime_ns < frame.image.stat().st_mtime_ns
    }
    missing = [i for i, path in enumerate(paths.values()) if path in stale or not path.exists()]
    if stale:
        print(
            f"NOTE: {len(stale)} images are newer than their labels, which are made again with the"
            " thresholds measured before. To measure them anew, choose another --output."
        )
    if not missing:
        return 0
    thresholds = thresholds.to(labeller.device)
    stored = stored_value_of(label_format.class_set)
    for name, prediction, bins in labeller(listing.subset(missing), "labelling"):
        confident = (bins >= thresholds[prediction.long()]).cpu().numpy()  # (H, W)
        paths[name].parent.mkdir(parents=True, exist_ok=True)
        train_ids = np.where(confident, prediction.cpu().numpy(), IGNORE_INDEX)
        write_png(paths[name], stored[train_ids])
    return len(missing)


def class_table(classes: dict[str, dict[str, Any]]) -> str:
    """Markdown table of the thresholds and of the kept pixels of each class."""
    rows, total = [], sum(entry["predicted_pixels"] for entry in classes.values())
    for name, entry in classes.items():
        kept = ["-", "-"]
        if entry["threshold"] is not None:
            kept = [f"{entry['threshold']:.6f}", percent(entry["kept_fraction"])]
        rows.append([name, percent(entry["predicted_pixels"] / total), *kept])
    return markdown_table(["class", "% of pixels predicted", "threshold", "% of these kept"], rows)


def target_listing(args) -> ImageList:
    """Images to label; raises ValueError if the labels would be written among the ground truth."""
    target = from_arguments(TargetFlags, vars(args))
    listing, root = target.images(args.split, args.list), target.scored_root
    if root is not None and args.output.resolve() == root.resolve():
        raise ValueError(
            f"--output {args.output} is the root of the data set: these labels would pass for its"
            " ground truth. Choose another folder."
        )
    return listing


def main(args) -> None:
    listing = target_listing(args)
    members = read_members(args.checkpoints)
    device = choose_device(args.device)
    precision = choose_precision(args.precision, device)
    views = TTA_PRESETS.get(args.tta, ())
    check_memory(*largest_image(listing), device, scales=[view.scale for view in views])
    class_set, dtype = recorded_class_set(members[0]), PRECISIONS[precision]
    predictors = [load_predictor(each, len(class_set), device, dtype, views) for each in members]
    labeller = PseudoLabeller(predictors, args.workers, prediction_format(class_set))

    # The record: that of an interrupted run, or a new one after the first pass over the images.
    settings = label_settings(args, listing, precision)
    warnings = label_warnings(args, members, listing)
    record_path = output_folder(args.output) / f"pseudo_labels-{args.split}.json"
    record = read_record(record_path, args.output / f"gtFine/{args.split}", settings)
    if record is None:
        record = {
            "name": " + ".join(member["name"] for member in members),
            "checkpoint": one_or_all(list(map(str, args.checkpoints))),
            "step": one_or_all([member["step"] for member in members]),
            "warnings": warnings,
            "argv": sys.argv,
            "settings": settings,
            "provenance": inherited([], *members),
            "environment": environment(),
            "complete": False,
            "classes": measure_thresholds(labeller, listing, args.keep, args.min_confidence),
            "images": listing.names,
        }
        write_json(record_path, record)

    # The labels, in the second pass.
    thresholds = torch.tensor([entry["threshold_bin"] for entry in record["classes"].values()])
    written = write_labels(labeller, listing, thresholds, args.output, args.split)
    write_json(record_path, record | {"complete": True})
    print(f"\n{class_table(record['classes'])}\n")
    print(
        f"{args.output}: {written} labels written now, {len(listing) - written} existed already;"
        f" {record_path.name} records how they were made."
    )
    print(*(f"WARNING: {warning}" for warning in warnings), sep="\n")
    print(f"Train on them with --pseudo-labels {args.output}")


if __name__ == "__main__":
    with user_errors_without_traceback():
        try:
            main(parse_arguments())
        except KeyboardInterrupt:
            sys.exit(
                "\nInterrupted. The labels already written are complete: give the same command"
                " again to continue."
            )
