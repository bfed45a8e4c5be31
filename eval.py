"""Scores checkpoints on a labelled split at full resolution: the paper's Tables I and II.

A checkpoint is enough: it records its backbone, classes and input. So does a file that was exported
from it. One confusion matrix is counted over the whole split. Predictions can be saved for
Cityscapes' evaluation script and its benchmark server; pictures show the mistakes. The processes of
torchrun share the images.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from dataset.class_set import ClassSet, recorded_class_set
from dataset.label_format import CITYSCAPES_LABELS, prediction_format, stored_value_of
from dataset.labels import CLASS_SUBSETS, IGNORE_INDEX, class_subset
from dataset.layout import data_images
from dataset.layout_file import load_layout
from dataset.listing import ImageList, check_listing, select_by_list
from dataset.loader import LoaderOptions, evaluation_loader
from dataset.merge import ClassMerge, load_merge
from dataset.segmentation import Sample
from dataset.source import labelled_images
from dataset.target import target_layout
from model.inference.cost import deployed_costs, discriminator_costs
from model.inference.engines import ENGINES, EngineChoice, choose_engine
from model.inference.export import EXPORTED_NETWORKS
from model.inference.merge import MergedPredictor
from model.inference.predictor import load_predictor
from model.inference.tta import TTA_PRESETS
from utils.evaluation.evaluate import Evaluation, evaluate
from utils.evaluation.predictions import prediction_files, result_folders, save_prediction
from utils.files import output_folder
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
    if args.split == "test" and args.cityscapes:
        if not args.save_predictions:
            parser.error(
                "--split test has no public labels to score with. Add --save-predictions DIR, and"
                " submit DIR to the benchmark server"
            )
        parser.refuse_unused(given, ["classes"], "with --split test, which has no scores")
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
        help="score on Cityscapes, or on another known data set with splits",
    )
    data.add_argument(
        "--source",
        "--gta5",
        dest="gta5",
        type=Path,
        metavar="ROOT",
        help="score on the source instead: GTA5, SYNTHIA, folders of your own, ... (train)",
    )
    parser.add_argument(
        "--layout",
        metavar="NAME|FILE",
        help="data set of the root: gta5, acdc, ... or a TOML file; default: recognized",
    )
    parser.add_argument(
        "--split",
        default="val",
        help="split of --target; test of Cityscapes has no public labels: predictions, no scores",
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
    path: Path, args: Namespace, processes: ProcessGroup, merge: ClassMerge | None
) -> ScoredModel:
    """Reads a checkpoint or an exported file.

    Raises ValueError where ``merge`` is from other classes than it has.
    """
    device = processes.device
    if path.suffix in EXPORTED_NETWORKS:
        return load_exported(path, args, device)
    checkpoint = read_checkpoint(path)
    class_set = recorded_class_set(checkpoint)
    if merge is not None:
        merge.require(class_set, str(path))
    precision = choose_precision(args.precision, device)
    dtype, views = PRECISIONS[precision], TTA_PRESETS.get(args.tta, ())
    predictor = load_predictor(checkpoint, len(class_set), device, dtype, views)
    if merge is None:
        # Several processes might choose differently, and their counts are added.
        wanted = "eager" if args.engine == "auto" and processes.world_size > 1 else args.engine
        segment = choose_engine(predictor, checkpoint, len(class_set), wanted)
    else:
        segment = MergedPredictor(predictor, merge.matrix())
    metadata = {key: value for key, value in checkpoint.items() if key != "parts"}
    return ScoredModel(path, metadata, segment, precision, args.tta)


def load_exported(path: Path, args: Namespace, device: torch.device) -> ScoredModel:
    """Reads a file of scripts.export. Raises ValueError for options that need a checkpoint."""
    for flag, value in (
        ("--tta", args.tta),
        ("--engine", args.engine),
        ("--precision", args.precision),
        ("--merge", args.merge),
    ):
        if value not in (None, "auto"):
            raise ValueError(
                f"{flag} {value}: {path} is an exported file, which has its own. Leave {flag} out,"
                " or score the checkpoint."
            )
    network = EXPORTED_NETWORKS[path.suffix](path, device)
    missing = {"architecture", "step", "seen_images"} - network.metadata.keys()
    if missing:
        raise ValueError(
            f"{path} does not record {', '.join(sorted(missing))} of its checkpoint, which scoring"
            " needs: an older version exported it. Export it again."
        )
    engine = "torch.export" if path.suffix == ".pt2" else "onnx"
    segment = EngineChoice(lambda images: torch.from_numpy(network(images.numpy())), name=engine)
    return ScoredModel(path, network.metadata, segment, network.precision, None)


def common_class_set(models: list[ScoredModel]) -> ClassSet:
    """The class set of all ``models``; raises ValueError where they have different ones."""
    class_sets = [recorded_class_set(model.metadata) for model in models]
    first = class_sets[0]
    for model, other in zip(models, class_sets, strict=True):
        if other.names != first.names:
            raise ValueError(
                f"{models[0].path} has the classes of {first.name} ({', '.join(first.names)}),"
                f" {model.path} those of {other.name} ({', '.join(other.names)}): their scores"
                " cannot stand in one table. Score them one by one."
            )
    return first


def averaged_classes(words: list[str] | None, class_set: ClassSet) -> tuple[int, ...]:
    """The trainIds that --classes names; all without it. Raises ValueError for an unknown one."""
    if words is None:
        return tuple(range(len(class_set)))
    is_subset = class_set == CITYSCAPES_LABELS.class_set
    return class_subset(words) if is_subset else class_set.train_ids(words)


def costs(metadata: dict[str, Any]) -> dict[str, float]:
    """Parameters and MACs of the deployed network, and of the discriminator if it had one."""
    found = deployed_costs(metadata["architecture"])
    if "discriminator" in metadata:
        num_classes = metadata["architecture"]["num_classes"]
        found |= discriminator_costs(metadata["discriminator"], num_classes)
    return found


def read_images(args: Namespace, class_set: ClassSet) -> ImageList:
    """The images to score, with labels but for the split test; the first of them are checked."""
    has_labels = scores_are_possible(args)
    if args.gta5:
        images = labelled_images(args.gta5, args.layout, class_set)
    else:
        layout = load_layout(args.layout) if args.layout else target_layout(args.cityscapes)
        layout = layout or load_layout("cityscapes")  # whose message says what is missing
        images = data_images(args.cityscapes, args.split, has_labels, layout, class_set)
    images = select_by_list(images, args.list)
    if has_labels:
        check_listing(images)
    return images


def scores_are_possible(args: Namespace) -> bool:
    """Whether the images have public labels."""
    return not (args.cityscapes and args.split == "test")


def evaluation_batches(
    model: ScoredModel, images: ImageList, processes: ProcessGroup, workers: int
) -> tqdm:
    """The images of this process, one at a time; the first process shows the progress."""
    rank, world_size = processes.rank, processes.world_size
    options = LoaderOptions(workers, pin_memory=processes.device.type == "cuda")
    loader = evaluation_loader(images, options, (rank, world_size))
    title = model.name if world_size == 1 else f"{model.name}, process 1 of {world_size}"
    hidden = True if rank else None  # None: hidden where the output is no terminal
    return tqdm(loader, desc=title, unit="image", disable=hidden, dynamic_ncols=True)


class ResultFolders(NamedTuple):
    """Where files of a model go; None: nowhere. ``saved_in``: the classes of saved predictions."""

    predictions: Path | None
    pictures: Path | None
    saved_in: ClassSet


def predict_and_keep(
    model: ScoredModel, saved_in: ClassSet, kept: list[Tensor]
) -> Callable[[Tensor], Tensor]:
    """``model.predict``, whose class map in the classes ``saved_in`` becomes the only one ``kept``.

    That is its result, but for a merge with predictions saved in the network's own classes.
    """
    own = recorded_class_set(model.metadata).names
    is_other = isinstance(model.predict, MergedPredictor) and saved_in.names == own

    def predict(images: Tensor) -> Tensor:
        scored, saved = model.predict.both(images) if is_other else 2 * (model.predict(images),)
        kept[:] = [saved]
        return scored

    return predict


def evaluate_model(
    model: ScoredModel,
    images: ImageList,
    processes: ProcessGroup,
    workers: int,
    folders: ResultFolders,
) -> Evaluation:
    """The pixel counts of all processes. Writes into the ``folders`` that are given."""
    class_set, (predictions, pictures, saved_in) = images.class_set, folders
    files, stored = prediction_files_of(images, saved_in), stored_value_of(saved_in)
    kept: list[Tensor] = []
    mistakes = MistakePictures(class_set.names, class_set.color_table, IGNORE_INDEX)

    def on_batch(batch: Sample, prediction: Tensor, matrix: Tensor) -> None:
        index = int(batch.index[0])
        if predictions:
            save_prediction(predictions / files[index], stored[kept[0][0].cpu().numpy()])
        if pictures:
            maps = batch.image[0], batch.label[0], prediction[0]
            mistakes.add(index, images[index].name, maps, matrix)

    batches = evaluation_batches(model, images, processes, workers)
    model.predict.expect(len(batches))
    predict = predict_and_keep(model, saved_in, kept)
    local = evaluate(predict, batches, len(class_set), IGNORE_INDEX, on_batch)
    # Counts are integers: their sum is the same for every number of processes.
    matrix = processes.all_reduce_sum(local.matrix)
    ignored = processes.all_reduce_sum(local.ignored)
    if pictures:
        mistakes.write(pictures, matrix, model.name, len(images), processes)
    return Evaluation(matrix, ignored)


def prediction_files_of(images: ImageList, class_set: ClassSet) -> list[str]:
    """The file of each image's prediction, which holds labelIds or trainIds."""
    are_label_ids = prediction_format(class_set).holds_label_ids
    return prediction_files(images.names, "labelIds" if are_label_ids else "trainIds")


def save_without_scores(
    model: ScoredModel,
    images: ImageList,
    processes: ProcessGroup,
    workers: int,
    folders: ResultFolders,
) -> None:
    """Saves the predictions of a split without public labels."""
    batches = evaluation_batches(model, images, processes, workers)
    folder, _, saved_in = folders
    files, stored = prediction_files_of(images, saved_in), stored_value_of(saved_in)
    kept: list[Tensor] = []
    predict = predict_and_keep(model, saved_in, kept)
    for batch in batches:
        predict(batch.image)
        path = folder / files[int(batch.index[0])]
        save_prediction(path, stored[kept[0][0].cpu().numpy()])
    count = processes.all_reduce_sum(len(batches))  # waits until every process has saved its images
    if processes.is_first:
        print(
            f"{model.name}: {count} predictions in {folder}; zip this folder for the benchmark"
            " server. No scores: no labels."
        )


def main(args: Namespace) -> None:
    if args.json:  # a folder that cannot be written to is an error before the scoring
        output_folder(args.json.absolute().parent)
    merge = load_merge(args.merge) if args.merge else None
    with ProcessGroup(choose_device(args.device)) as processes:
        models = [load_model(path, args, processes, merge) for path in args.checkpoints]
        own = common_class_set(models)
        class_set = own if merge is None else merge.new
        classes = averaged_classes(args.classes, class_set)
        names = [model.folder for model in models]
        saved_in = own if args.predicted_classes == "network" else class_set
        predictions = result_folders(args.save_predictions, names)
        pictures = result_folders(args.pictures, names)
        folders = [
            ResultFolders(*both, saved_in) for both in zip(predictions, pictures, strict=True)
        ]
        images = read_images(args, class_set)
        if not scores_are_possible(args):
            for model, places in zip(models, folders, strict=True):
                save_without_scores(model, images, processes, args.workers, places)
            return

        rows = []
        for model, places in zip(models, folders, strict=True):
            evaluation = evaluate_model(model, images, processes, args.workers, places)
            rows.append(model.row(evaluation, classes, images.identities, costs(model.metadata)))
        if processes.is_first:
            data = scored_data(args, images, class_set, merge)
            print_tables(rows, data)
            if args.json:
                write_rows(args.json, rows, data, classes)


def scored_data(
    args: Namespace, images: ImageList, class_set: ClassSet, merge: ClassMerge | None
) -> ScoredData:
    """What tables and the JSON file say of the images and their classes."""
    return ScoredData(
        f"{images.root}" + ("" if args.gta5 else f", split {args.split}"),
        args.split,
        images.names,
        images.fingerprint(),
        class_set.as_dict(),
        published=merge is None and class_set == CITYSCAPES_LABELS.class_set,
        merge=None if merge is None else merge.as_dict(),
    )


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
