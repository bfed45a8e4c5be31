"""Scores checkpoints on a labelled split at full resolution: the paper's Tables I and II.

A checkpoint is enough: it records its backbone, classes and input. One confusion matrix is counted
over the whole split. Predictions can be saved for Cityscapes' evaluation script and its benchmark
server; pictures show the mistakes. The processes of torchrun share the images.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from dataset.cityscapes import cityscapes
from dataset.gta5 import gta5
from dataset.labels import (
    CLASS_NAMES,
    CLASS_SUBSETS,
    COLORS,
    IGNORE_INDEX,
    LABEL_ID_OF,
    NUM_CLASSES,
    class_subset,
)
from dataset.listing import ImageList, check_listing, select_by_list
from dataset.loader import LoaderOptions, evaluation_loader
from dataset.segmentation import Sample
from model.inference.cost import deployed_costs, discriminator_costs
from model.inference.predictor import Predictor, load_predictor
from model.inference.tta import TTA_PRESETS
from utils.evaluation.comparability import score_warnings
from utils.evaluation.evaluate import Evaluation, evaluate
from utils.evaluation.metrics import scores
from utils.files import output_folder, write_json, write_png
from utils.options.groups import add_device_arguments, add_workers_argument
from utils.options.parser import new_parser, user_errors_without_traceback
from utils.report.comparison import ComparisonRow, table_1, table_2
from utils.report.pictures import confusion_picture
from utils.report.tables import markdown_table, percent
from utils.report.worst_images import ImageScore, draw_images, worst_images
from utils.training.checkpoint import read_checkpoint
from utils.training.distributed import ProcessGroup
from utils.training.precision import PRECISIONS, choose_device, choose_precision

EPILOG = """examples:
  python eval.py checkpoints/*/last.pt --cityscapes $CITYSCAPES
  the paper's list, scores as JSON:
    python eval.py checkpoints/ada/last.pt --cityscapes $CITYSCAPES --json ada.json \\
        --list dataset/splits/cityscapes_val_250.txt
  pictures of the mistakes:
    python eval.py checkpoints/ada/last.pt --cityscapes $CITYSCAPES --pictures ada-pictures
  predictions for the benchmark server:
    python eval.py checkpoints/ada/last.pt --cityscapes $CITYSCAPES --split test \\
        --save-predictions ada-test
  on several GPUs:
    torchrun --standalone --nproc-per-node 4 eval.py checkpoints/ada/last.pt \\
        --cityscapes $CITYSCAPES
"""
NUM_WORST_IMAGES = 8


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    parser = new_parser(__doc__, EPILOG)
    checkpoints_help = "last.pt of a run (best.pt was chosen with labels)"
    parser.add_argument(
        "checkpoints", type=Path, nargs="+", metavar="CHECKPOINT", help=checkpoints_help
    )
    add_data_arguments(parser)
    parser.add_argument(
        "--classes",
        nargs="+",
        default=["19"],
        metavar="SUBSET|NAME",
        help=f"classes of the means: one of {', '.join(CLASS_SUBSETS)}, or class names",
    )
    parser.add_argument(
        "--tta",
        choices=tuple(TTA_PRESETS),
        help="test-time augmentation: average over the mirrored image too, or also over six scales",
    )
    add_result_arguments(parser)
    add_device_arguments(parser)
    add_workers_argument(parser)
    args = parser.parse_args(argv)
    if args.gta5 and "split" in parser.given(argv):
        parser.error("--split: without effect with --source, which has no splits. Leave it out")
    if args.split == "test" and args.cityscapes:
        if not args.save_predictions:
            parser.error(
                "--split test has no public labels to score with. Add --save-predictions DIR, and"
                " submit DIR to the benchmark server"
            )
        if args.pictures or args.json:
            parser.error(
                "--split test has no public labels: --pictures and --json, which need scores, are"
                " not available for it"
            )
    return args


def add_data_arguments(parser: ArgumentParser) -> None:
    data = parser.add_argument_group("data").add_mutually_exclusive_group(required=True)
    data.add_argument(
        "--target",
        "--cityscapes",
        dest="cityscapes",
        type=Path,
        metavar="ROOT",
        help="score on Cityscapes: folder with leftImg8bit/ and gtFine/",
    )
    data.add_argument(
        "--source",
        "--gta5",
        dest="gta5",
        type=Path,
        metavar="ROOT",
        help="score on the source instead: folder with images/ and labels/",
    )
    parser.add_argument(
        "--split",
        choices=("train", "val", "test"),
        default="val",
        help="split of Cityscapes; test has no public labels: predictions only, no scores",
    )
    parser.add_argument(
        "--list", type=Path, metavar="FILE", help="score only the images named in FILE, one a line"
    )


def add_result_arguments(parser: ArgumentParser) -> None:
    results = parser.add_argument_group("results")
    results.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write all scores and the confusion matrices, as fractions of 1",
    )
    results.add_argument(
        "--save-predictions",
        type=Path,
        metavar="DIR",
        help="write predictions as PNGs of labelIds, for Cityscapes' evaluation script and server",
    )
    results.add_argument(
        "--pictures",
        type=Path,
        metavar="DIR",
        help=f"draw the confusion matrix and the {NUM_WORST_IMAGES} images with the lowest IoU",
    )


@dataclass(frozen=True)
class EvaluatedModel:
    """A checkpoint to score: its predictor, and its content without the weights."""

    path: Path
    metadata: dict[str, Any]
    predictor: Predictor
    precision: str
    tta: str | None

    @property
    def name(self) -> str:
        """The name in tables, which tells the test-time augmentation."""
        return self.metadata["name"] + (f" ({self.tta})" if self.tta else "")


def load_model(path: Path, args: Namespace, device: torch.device) -> EvaluatedModel:
    """Reads a checkpoint. Raises ValueError where it has other classes than Cityscapes' 19."""
    checkpoint = read_checkpoint(path)
    precision = choose_precision(args.precision, device)
    dtype, views = PRECISIONS[precision], TTA_PRESETS.get(args.tta, ())
    predictor = load_predictor(checkpoint, NUM_CLASSES, device, dtype, views)
    metadata = {key: value for key, value in checkpoint.items() if key != "parts"}
    return EvaluatedModel(path, metadata, predictor, precision, args.tta)


def result_folders(folder: Path | None, models: Sequence[EvaluatedModel]) -> list[Path | None]:
    """A folder for each model's files; None where ``folder`` is None.

    Several models get a subfolder each: Cityscapes' script wants one prediction an image below a
    folder. Raises ValueError where two of them have the same name.
    """
    if folder is None:
        return [None] * len(models)
    if len(models) == 1:
        return [output_folder(folder)]
    names = [f"{model.metadata['name']}-{model.path.stem}" for model in models]
    if len(set(names)) < len(names):
        raise ValueError(
            f"Two of the checkpoints have the same name, {sorted(names)}: their files would"
            " overwrite each other. Score them one by one."
        )
    return [output_folder(folder / name) for name in names]


def evaluation_batches(
    model: EvaluatedModel, listing: ImageList, processes: ProcessGroup, workers: int
) -> tqdm:
    """The images of this process, one at a time; the first process shows the progress."""
    rank, world_size = processes.rank, processes.world_size
    loading = LoaderOptions(workers, pin_memory=processes.device.type == "cuda")
    loader = evaluation_loader(listing, loading, (rank, world_size))
    title = model.name if world_size == 1 else f"{model.name}, process 1 of {world_size}"
    hidden = True if rank else None  # None: hidden where the output is no terminal
    return tqdm(loader, desc=title, unit="image", disable=hidden, dynamic_ncols=True)


def prediction_names(listing: ImageList) -> list[str]:
    """The file of each image's prediction: its name, below its folders where names are equal.

    Cityscapes' script looks for CITY_000000_000000*.png anywhere below the folder.
    """
    names = [name.removesuffix("_leftImg8bit") for name in listing.names]
    stems = [Path(name).name for name in names]
    count = Counter(stems)
    kept = [stem if count[stem] == 1 else name for stem, name in zip(stems, names, strict=True)]
    return [f"{name}_pred_labelIds.png" for name in kept]


def save_prediction(path: Path, prediction: Tensor) -> None:
    """Writes (H, W) uint8 trainIds as a PNG of labelIds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, LABEL_ID_OF[prediction.numpy()])


def evaluate_model(
    model: EvaluatedModel,
    listing: ImageList,
    processes: ProcessGroup,
    workers: int,
    predictions: Path | None,
    pictures: Path | None,
) -> Evaluation:
    """The pixel counts of all processes. Writes into ``predictions`` and ``pictures`` if given."""
    worst: list[ImageScore] = []
    files = prediction_names(listing)

    def on_batch(batch: Sample, prediction: Tensor, matrix: Tensor) -> None:
        index = int(batch.index[0])
        name = listing[index].name
        if predictions:
            save_prediction(predictions / files[index], prediction[0])
        if pictures and matrix.any():
            arrays = (x[0].numpy() for x in (batch.image, batch.label, prediction))
            image = ImageScore(scores(matrix).miou, index, name, *arrays)
            worst[:] = worst_images([*worst, image], NUM_WORST_IMAGES)

    batches = evaluation_batches(model, listing, processes, workers)
    local = evaluate(model.predictor, batches, NUM_CLASSES, IGNORE_INDEX, on_batch)
    # Counts are integers: their sum is the same for every number of processes.
    matrix = processes.all_reduce_sum(local.matrix)
    ignored = processes.all_reduce_sum(local.ignored)
    if pictures:
        worst = worst_images(chain(*processes.gather(worst)), NUM_WORST_IMAGES)
        if processes.is_first:
            title = f"{model.name}: mIoU {percent(scores(matrix).miou)} % on {len(listing)} images"
            picture = confusion_picture(matrix.numpy(), CLASS_NAMES, title)
            write_png(pictures / "confusion_matrix.png", picture)
            picture = draw_images(worst, CLASS_NAMES, COLORS, IGNORE_INDEX)
            write_png(pictures / "worst_images.png", picture)
    return Evaluation(matrix, ignored)


def save_without_scores(
    model: EvaluatedModel, listing: ImageList, processes: ProcessGroup, workers: int, folder: Path
) -> None:
    """Saves the predictions of a split without public labels."""
    batches = evaluation_batches(model, listing, processes, workers)
    files = prediction_names(listing)
    for batch in batches:
        prediction = model.predictor(batch.image)[0].cpu()
        save_prediction(folder / files[int(batch.index[0])], prediction)
    count = processes.all_reduce_sum(len(batches))  # waits until every process has saved its images
    if processes.is_first:
        print(
            f"{model.name}: {count} predictions in {folder}; zip this folder for the benchmark"
            " server. No scores: no labels."
        )


def result_row(
    model: EvaluatedModel, evaluation: Evaluation, listing: ImageList, classes: tuple[int, ...]
) -> dict[str, Any]:
    """The row of a model in the JSON file: checkpoint, warnings, costs, scores."""
    metadata = model.metadata
    costs = deployed_costs(metadata["architecture"])
    if "discriminator" in metadata:
        costs |= discriminator_costs(metadata["discriminator"], NUM_CLASSES)
    return {
        "name": model.name,
        "checkpoint": str(model.path),
        "step": metadata["step"],
        "precision": model.precision,
        "tta": model.tta,
        "warnings": score_warnings(metadata, model.path.name, listing.names, model.tta),
        **costs,
        **asdict(scores(evaluation.matrix, evaluation.ignored, classes)),
        "ignored": evaluation.ignored,
        "matrix": evaluation.matrix.tolist(),
    }


def report(
    rows: list[dict[str, Any]], listing: ImageList, classes: tuple[int, ...], args: Namespace
) -> None:
    """Prints tables and warnings, and writes the JSON file."""
    data = f"{listing.root}" + ("" if args.gta5 else f", split {args.split}")
    augmented = f", test-time augmentation {args.tta}" if args.tta else ""
    table_rows = [ComparisonRow(row["name"], (row,)) for row in rows]
    print(
        f"\n{len(listing)} images of {data}, full resolution, {rows[0]['precision']}{augmented}."
        " Rows marked (published) are the paper's, not ours."
    )
    print("\nTable I", markdown_table(*table_1(table_rows, CLASS_NAMES, published=True)), sep="\n")
    print("\nTable II (MACs at 512x1024 by ptflops)")
    print(markdown_table(*table_2(table_rows, published=True, seeds=False)))
    for warning in (warning for row in rows for warning in row["warnings"]):
        print(f"WARNING: {warning}")
    if args.json:
        names = [CLASS_NAMES[c] for c in classes]
        content = {"images": len(listing), "split": args.split, "classes": names, "rows": rows}
        content |= {"fingerprint": listing.fingerprint(), "argv": sys.argv}
        write_json(args.json, content)


def main(args: Namespace) -> None:
    classes = class_subset(args.classes)
    if args.json:  # a folder that cannot be written to is an error before the scoring
        output_folder(args.json.absolute().parent)
    has_labels = not (args.cityscapes and args.split == "test")
    with ProcessGroup(choose_device(args.device)) as processes:
        models = [load_model(path, args, processes.device) for path in args.checkpoints]
        predictions = result_folders(args.save_predictions, models)
        pictures = result_folders(args.pictures, models)
        everything = (
            gta5(args.gta5)
            if args.gta5
            else cityscapes(args.cityscapes, args.split, labels=has_labels)
        )
        listing = select_by_list(everything, args.list)
        if not has_labels:
            for model, folder in zip(models, predictions, strict=True):
                save_without_scores(model, listing, processes, args.workers, folder)
            return
        check_listing(listing)
        rows = []
        for model, *folders in zip(models, predictions, pictures, strict=True):
            evaluation = evaluate_model(model, listing, processes, args.workers, *folders)
            rows.append(result_row(model, evaluation, listing, classes))
        if processes.is_first:
            report(rows, listing, classes, args)


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
