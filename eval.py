"""Scores checkpoints on a labelled split at full resolution: the paper's Tables I and II.

A checkpoint is enough: it records its backbone, classes and input. So does a file that was exported
from it. One confusion matrix is counted over the whole split. Predictions can be saved for
Cityscapes' evaluation script and its benchmark server; pictures show the mistakes. The processes of
torchrun share the images.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from dataset.class_set import ClassSet
from dataset.class_set_file import common_class_set, recorded_class_set
from dataset.label_format import CITYSCAPES_LABELS, prediction_format, stored_value_of
from dataset.labels import CLASS_SUBSETS, IGNORE_INDEX, class_subset
from dataset.layout import classes_of_labels, data_images
from dataset.layout_file import Layout, load_layout
from dataset.listing import ImageList, largest_image
from dataset.listing_check import check_listing
from dataset.loader import LoaderOptions, evaluation_loader
from dataset.merge import ClassMerge, load_merge
from dataset.source import labelled_images
from dataset.target import layout_with_splits
from model.inference.cost import table_2_costs
from model.inference.engines import ENGINES, choose_engine, open_exported
from model.inference.exported_network import EXPORTED_NETWORKS
from model.inference.merge import MergedPredictor, SavedPrediction
from model.inference.predictor import load_predictor
from model.inference.tta import TTA_PRESETS
from utils.benchmark.memory import check_memory
from utils.evaluation.evaluate import Evaluation
from utils.evaluation.predictions import PredictionFiles, result_folders
from utils.evaluation.scoring import save_batches, score_batches
from utils.files import output_file
from utils.options.groups import add_device_arguments, add_workers_argument
from utils.options.parser import new_parser, user_errors_without_traceback
from utils.report.evaluation import ScoredData, ScoredModel, print_tables, write_rows
from utils.report.worst_images import NUM_WORST_IMAGES, MistakePictures
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
  a network of 19 classes on data of other classes (docs/evaluation.md):
    python eval.py checkpoints/ada/last.pt --target $CAMVID --merge cityscapes19-to-camvid11
  on several GPUs:
    torchrun --standalone --nproc-per-node 4 eval.py checkpoints/ada/last.pt \\
        --cityscapes $CITYSCAPES
"""


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    parser = new_parser(__doc__, EPILOG)
    checkpoints_help = "last.pt of a run (best.pt was chosen with labels), or an exported file"
    parser.add_argument(
        "checkpoints", type=Path, nargs="+", metavar="CHECKPOINT", help=checkpoints_help
    )
    add_data_arguments(parser)
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="SUBSET|NAME",
        help=f"classes of the means: {', '.join(CLASS_SUBSETS)}, or class names; default: all",
    )
    parser.add_argument(
        "--merge",
        metavar="NAME|FILE",
        help="score in other classes: probabilities of merged classes are summed before the argmax",
    )
    parser.add_argument(
        "--tta",
        choices=tuple(TTA_PRESETS),
        help="test-time augmentation: average over the mirrored image too, or also over six scales",
    )
    add_result_arguments(parser)
    add_device_arguments(parser)
    parser.add_argument(
        "--engine",
        choices=("auto", *ENGINES),
        default="auto",
        help="auto: with many images, the fastest that agrees with the eager network (CPU)",
    )
    add_workers_argument(parser)
    args = parser.parse_args(argv)
    given = parser.given(argv)
    if args.merge:
        parser.refuse_unused(given, ["engine"], "with --merge, which needs probabilities")
    if not (args.merge and args.save_predictions):
        reason = "without --merge and --save-predictions"
        parser.refuse_unused(given, ["predicted_classes"], reason)
    if args.gta5:
        parser.refuse_unused(given, ["split"], "with --source, which has no splits")
    return args


def add_data_arguments(parser: ArgumentParser) -> None:
    data = parser.add_argument_group("data").add_mutually_exclusive_group(required=True)
    data.add_argument(
        "--target",
        "--cityscapes",
        dest="cityscapes",
        type=Path,
        metavar="ROOT",
        help="score on a data set with splits: Cityscapes, another known one, or see --layout",
    )
    data.add_argument(
        "--source",
        "--gta5",
        dest="gta5",
        type=Path,
        metavar="ROOT",
        help="score on labelled source images (their split train) instead: GTA5, SYNTHIA, ...",
    )
    parser.add_argument(
        "--layout",
        metavar="NAME|FILE",
        help="data set of the root: gta5, acdc, ... or a TOML file; default: recognized",
    )
    parser.add_argument(
        "--split",
        default="val",
        help="split of --target; one without public labels: predictions, no scores",
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
        help="write predictions as PNGs: labelIds for Cityscapes' script and server, else trainIds",
    )
    results.add_argument(
        "--predicted-classes",
        choices=("data", "network"),
        default="data",
        help="with --merge: predictions are saved in the merged classes, or in the network's own",
    )
    results.add_argument(
        "--pictures",
        type=Path,
        metavar="DIR",
        help=f"draw the confusion matrix and the {NUM_WORST_IMAGES} images with the lowest IoU",
    )


def load_model(
    path: Path,
    args: Namespace,
    device: torch.device,
    is_distributed: bool,
    merge: ClassMerge | None,
) -> ScoredModel:
    """Reads a checkpoint or an exported file. ``is_distributed``: processes share the images.

    Raises ValueError where ``merge`` is from other classes than it has.
    """
    if path.suffix in EXPORTED_NETWORKS:
        names = ("tta", "engine", "precision", "merge")
        flags = {f"--{name}": getattr(args, name) for name in names}
        network, engine = open_exported(path, device, flags)
        return ScoredModel(path, network.metadata, engine, network.precision, None)
    checkpoint = read_checkpoint(path)
    class_set = recorded_class_set(checkpoint)
    if merge is not None:
        merge.require(class_set, str(path))
    precision = choose_precision(args.precision, device)
    dtype, views = PRECISIONS[precision], TTA_PRESETS.get(args.tta, ())
    predictor = load_predictor(checkpoint, len(class_set), device, dtype, views)
    if merge is None:
        # Several processes might choose differently, and their counts are added.
        wanted = "eager" if args.engine == "auto" and is_distributed else args.engine
        segment = choose_engine(predictor, checkpoint, len(class_set), wanted)
    else:
        segment = MergedPredictor(predictor, merge.matrix())
    metadata = {key: value for key, value in checkpoint.items() if key != "parts"}
    return ScoredModel(path, metadata, segment, precision, args.tta)


def averaged_classes(words: list[str] | None, class_set: ClassSet) -> tuple[int, ...]:
    """The trainIds that --classes names; all without it. Raises ValueError for an unknown one."""
    if words is None:
        return tuple(range(len(class_set)))
    is_cityscapes = class_set == CITYSCAPES_LABELS.class_set
    return class_subset(words) if is_cityscapes else class_set.train_ids(words)


def has_labels(layout: Layout | None, split: str) -> bool:
    """Whether ``split`` has public labels; None: source images, which all have.

    Raises ValueError for an unknown split.
    """
    return layout is None or bool(layout.split(split)[1].labels)


def refuse_scores(args: Namespace) -> None:
    """Raises ValueError for flags that need the labels which the split does not have."""
    without = f"--split {args.split} has no public labels"
    if not args.save_predictions:
        raise ValueError(
            f"{without} to score with. Add --save-predictions DIR, and submit DIR to the benchmark"
            " server."
        )
    flags = {"--classes": args.classes, "--pictures": args.pictures, "--json": args.json}
    unused = [flag for flag, value in flags.items() if value]
    if unused:
        raise ValueError(f"{without}, which {', '.join(unused)} would need. Leave them out.")


def read_images(args: Namespace, layout: Layout | None, class_set: ClassSet) -> ImageList:
    """The images to score, with labels if the split has any; the first of them are checked.

    ``layout``: of the data set with splits; None: source images.
    """
    if layout is None:
        if args.layout is not None:
            class_set = classes_of_labels(load_layout(args.layout), args.gta5, class_set)
        images = labelled_images(args.gta5, args.layout, class_set, args.list)
    else:
        labels = has_labels(layout, args.split)
        classes = classes_of_labels(layout, args.cityscapes, class_set)
        images = data_images(args.cityscapes, args.split, labels, layout, classes, args.list)
    if images.has_labels:
        check_listing(images)
    return images


def check_own_images(images: ImageList, processes: ProcessGroup, tta: str | None) -> None:
    """Raises ValueError where an image of this process needs more memory than is free."""
    own = range(len(images))[processes.rank :: processes.world_size]
    scales = [view.scale for view in TTA_PRESETS.get(tta, ())]
    if own:
        check_memory(*largest_image(images.subset(own)), processes.device, scales=scales)


class Outputs(NamedTuple):
    """What one model predicts, and what is written of it; None: nothing."""

    predict: SavedPrediction
    files: PredictionFiles | None
    mistakes: MistakePictures | None


def open_outputs(
    args: Namespace, models: list[ScoredModel], images: ImageList, scored: ClassSet
) -> list[Outputs]:
    """The outputs of each model. Makes their folders, so that none fails after the scoring."""
    own_classes = args.predicted_classes == "network"
    saved = recorded_class_set(models[0].metadata) if own_classes else scored
    kind = "labelIds" if prediction_format(saved).holds_label_ids else "trainIds"
    names, folder_names = images.names, [model.folder for model in models]
    predict = [SavedPrediction(model.predict, own_classes) for model in models]
    files = [
        folder and PredictionFiles(folder, names, kind, stored_value_of(saved))
        for folder in result_folders(args.save_predictions, folder_names)
    ]
    mistakes = [
        folder and MistakePictures(folder, names, scored.names, scored.color_table, IGNORE_INDEX)
        for folder in result_folders(args.pictures, folder_names)
    ]
    return list(map(Outputs, predict, files, mistakes))


def evaluation_batches(
    model: ScoredModel, images: ImageList, processes: ProcessGroup, workers: int
) -> tqdm:
    """The images of this process, one at a time; the first process shows the progress.

    The model is told their number: an engine is chosen by it.
    """
    rank, world_size = processes.rank, processes.world_size
    options = LoaderOptions(workers, pin_memory=processes.device.type == "cuda")
    loader = evaluation_loader(images, options, (rank, world_size))
    model.predict.expect(len(loader))
    title = model.name if world_size == 1 else f"{model.name}, process 1 of {world_size}"
    hidden = True if rank else None  # None: hidden where the output is no terminal
    return tqdm(loader, desc=title, unit="image", disable=hidden, dynamic_ncols=True)


def evaluate_model(
    model: ScoredModel, images: ImageList, outputs: Outputs, processes: ProcessGroup, workers: int
) -> Evaluation:
    """The pixel counts of all processes. Writes the ``outputs``."""
    predict, files, mistakes = outputs
    batches = evaluation_batches(model, images, processes, workers)
    num_classes = len(images.class_set)
    evaluation = score_batches(
        predict, batches, num_classes, IGNORE_INDEX, processes, files, mistakes
    )
    if mistakes:
        mistakes.write(evaluation.matrix, model.name, processes)
    return evaluation


def save_without_scores(
    model: ScoredModel, images: ImageList, outputs: Outputs, processes: ProcessGroup, workers: int
) -> None:
    """Saves the predictions of a split without public labels."""
    batches = evaluation_batches(model, images, processes, workers)
    count = save_batches(outputs.predict, batches, outputs.files, processes)
    if processes.is_first:
        print(
            f"{model.name}: {count} predictions in {outputs.files.folder}; zip this folder for the"
            " benchmark server. No scores: no labels."
        )


def main(args: Namespace) -> None:
    # What can be refused before a network is loaded.
    layout = None if args.gta5 else layout_with_splits(args.cityscapes, args.layout)
    if not has_labels(layout, args.split):
        refuse_scores(args)
    if args.json:  # a file that cannot be written is an error before the scoring
        output_file(args.json, args.checkpoints)
    merge = load_merge(args.merge) if args.merge else None
    with ProcessGroup(choose_device(args.device)) as processes:
        # Networks, then the images of their classes, then the folders of the results.
        device, is_distributed = processes.device, processes.world_size > 1
        models = [
            load_model(path, args, device, is_distributed, merge) for path in args.checkpoints
        ]
        network_classes = common_class_set({model.path: model.metadata for model in models})
        class_set = network_classes if merge is None else merge.new
        classes = averaged_classes(args.classes, class_set)
        images = read_images(args, layout, class_set)
        check_own_images(images, processes, args.tta)
        outputs = open_outputs(args, models, images, class_set)
        if processes.is_first and args.save_predictions:
            for output in outputs:
                output.files.note_others()
        if not images.has_labels:
            for model, output in zip(models, outputs, strict=True):
                save_without_scores(model, images, output, processes, args.workers)
            return

        # A row of scores for each model.
        rows = []
        for model, output in zip(models, outputs, strict=True):
            evaluation = evaluate_model(model, images, output, processes, args.workers)
            costs = table_2_costs(model.metadata)
            rows.append(model.row(evaluation, classes, images.identities, costs))
        if processes.is_first:
            split = "train" if layout is None else args.split
            is_papers = layout is not None and (layout.name, split) == ("cityscapes", "val")
            data = ScoredData(
                f"{images.root}" + ("" if layout is None else f", split {split}"),
                split,
                images.names,
                images.fingerprint(),
                class_set.as_dict(),
                published=is_papers and class_set == CITYSCAPES_LABELS.class_set,
                merge=merge and merge.as_dict(),
            )
            print_tables(rows, data)
            if args.json:
                write_rows(args.json, rows, data, classes)


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
