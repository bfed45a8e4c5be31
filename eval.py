"""Scores checkpoints on a labelled split at full resolution: the paper's Tables I and II, the
published rows beside ours.

A checkpoint is enough: it knows its backbone, its classes and its input. One confusion matrix is
gathered over the whole split. Predictions can be saved for the official evaluation and the
benchmark server, pictures show where a network fails. ProcessGroup that torchrun starts share the
images.
"""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from dataset.cityscapes import cityscapes
from dataset.gta5 import gta5
from dataset.image_io import read_image, read_label
from dataset.labels import (
    CLASS_NAMES,
    CLASS_SUBSETS,
    COLORS,
    IGNORE_INDEX,
    LABEL_ID_OF,
    NUM_CLASSES,
    TRAIN_ID_OF,
    class_subset,
)
from dataset.listing import ImageList, check_listing, select_by_list
from dataset.loader import Loading, evaluation_loader
from model.bisenet import BiSeNet
from model.discriminator import build_discriminator
from model.inference.cost import count_parameters, ptflops_macs
from model.inference.predictor import load_predictor
from model.inference.tta import TTA_PRESETS
from utils.evaluation.evaluate import evaluate
from utils.evaluation.metrics import scores
from utils.evaluation.published import TABLE_1, TABLE_2
from utils.files import output_folder, write_json, write_png
from utils.options.groups import add_device_arguments, add_workers_argument
from utils.options.parser import new_parser, user_errors_without_traceback
from utils.report.pictures import confusion_picture, image_grid, with_legend
from utils.report.tables import markdown_table, percent
from utils.training.checkpoint import read_checkpoint
from utils.training.distributed import ProcessGroup
from utils.training.precision import PRECISIONS, choose_device, choose_precision

EPILOG = """examples:
  python eval.py checkpoints/*/last.pt --cityscapes $CITYSCAPES
  python eval.py checkpoints/ada/last.pt --cityscapes $CITYSCAPES --list dataset/splits/cityscapes_val_250.txt --json ada.json
  where it fails:      python eval.py checkpoints/ada/last.pt --cityscapes $CITYSCAPES --pictures ada-pictures
  for the server:      python eval.py checkpoints/ada/last.pt --cityscapes $CITYSCAPES --split test --save-predictions ada-test
  on several GPUs:     torchrun --standalone --nproc-per-node 4 eval.py checkpoints/ada/last.pt --cityscapes $CITYSCAPES
"""
WORST = 8
"""Images on the contact sheet of the worst."""
SIZE = (512, 1024)
"""The input that costs are stated for, as in Table II."""


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__, EPILOG)
    parser.add_argument(
        "checkpoints",
        type=Path,
        nargs="+",
        metavar="CHECKPOINT",
        help="last.pt (or best.pt, which was chosen with labels)",
    )
    data = parser.add_argument_group("data").add_mutually_exclusive_group(required=True)
    data.add_argument(
        "--cityscapes",
        type=Path,
        metavar="ROOT",
        help="score on Cityscapes: folder with leftImg8bit/ and gtFine/",
    )
    data.add_argument(
        "--gta5",
        type=Path,
        metavar="ROOT",
        help="score on the source instead: folder with images/ and labels/",
    )
    parser.add_argument(
        "--split",
        choices=("train", "val", "test"),
        default="val",
        help="of Cityscapes; the labels of test are hidden: predictions only, no scores",
    )
    parser.add_argument(
        "--list",
        type=Path,
        metavar="FILE",
        help="score only the images that this file names, one a line",
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        default=["19"],
        metavar="SUBSET|NAME",
        help=(
            f"classes that the means are taken over: one of {', '.join(CLASS_SUBSETS)}, or class"
            " names. IoUs come from the full matrix"
        ),
    )
    parser.add_argument(
        "--tta",
        choices=tuple(TTA_PRESETS),
        help=(
            "test-time augmentation: average the probabilities of the image and its mirror image,"
            " or of both at six scales. Named in the tables: not to be compared with scores"
            " without it"
        ),
    )
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
        help=(
            "write each prediction as a PNG of labelIds, named and sized as Cityscapes' evaluation"
            " script and benchmark server expect"
        ),
    )
    results.add_argument(
        "--pictures",
        type=Path,
        metavar="DIR",
        help=(
            f"draw the confusion matrix, and the {WORST} images with the lowest IoU beside their"
            " ground truth"
        ),
    )
    add_device_arguments(parser)
    add_workers_argument(parser)
    args = parser.parse_args(argv)
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


class Network:
    """A checkpoint's network, ready to be used in one of the ``processes``, with its name and where
    its files go.
    """

    def __init__(self, path: Path, processes: ProcessGroup, args):
        self.path, self.processes, self.checkpoint = path, processes, read_checkpoint(path)
        self.name = self.checkpoint["name"] + (f" ({args.tta})" if args.tta else "")
        self.device = processes.device
        self.precision = choose_precision(args.precision, self.device)
        views = TTA_PRESETS.get(args.tta, ())
        self.predictor = load_predictor(
            self.checkpoint, NUM_CLASSES, self.device, PRECISIONS[self.precision], views
        )
        # The official script wants one prediction an image below its folder, so several checkpoints
        # get a folder each.
        subfolder = "" if len(args.checkpoints) == 1 else f"{self.checkpoint['name']}-{path.stem}"
        self.predictions, self.pictures = (
            output_folder(folder / subfolder) if folder else None
            for folder in (args.save_predictions, args.pictures)
        )

    def batches(self, listing: ImageList, workers: int) -> tqdm:
        """This process's share of ``listing``, read ahead by ``workers`` while the network
        computes; the first one shows its progress.
        """
        rank, world = self.processes.rank, self.processes.world_size
        loading = Loading(workers, pin_memory=self.device.type == "cuda")
        loader = evaluation_loader(listing, loading, (rank, world))
        title = self.name if world == 1 else f"{self.name}, process 1 of {world}"
        return tqdm(
            loader, desc=title, unit="image", disable=True if rank else None, dynamic_ncols=True
        )

    def save(self, frame_name: str, prediction: Tensor) -> None:
        """One PNG of labelIds. The official script looks for CITY_000000_000000*.png anywhere below
        the folder.
        """
        stem = Path(frame_name).name.removesuffix("_leftImg8bit")
        write_png(self.predictions / f"{stem}_pred_labelIds.png", LABEL_ID_OF[prediction.numpy()])


Scored = tuple[float, int, Tensor]
"""A single image: its mean IoU, its index in the listing, its prediction (H, W) uint8 trainIds on
the CPU.
"""


def lowest(images: Iterable[Scored]) -> list[Scored]:
    """The WORST of the images, the worst first; of equals the one that comes first in the
    listing.
    """
    return sorted(images, key=lambda image: image[:2])[:WORST]


def score_checkpoint(
    path: Path, listing: ImageList, classes: tuple[int, ...], processes: ProcessGroup, args
) -> dict:
    """One row, the same in every process: what the checkpoint is, its scores, its cost. Saves
    predictions and pictures where they are asked for.
    """
    network = Network(path, processes, args)
    checkpoint = network.checkpoint
    worst: list[Scored] = []

    def each(batch, prediction: Tensor, matrix: Tensor) -> None:
        index = int(batch.index[0])
        if network.predictions:
            network.save(listing[index].name, prediction[0])
        if network.pictures and matrix.any():
            worst[:] = lowest([*worst, (scores(matrix).miou, index, prediction[0])])

    batches = network.batches(listing, args.workers)
    share = evaluate(network.predictor, batches, NUM_CLASSES, IGNORE_INDEX, each)
    matrix, ignored = (
        processes.all_reduce_sum(share.matrix),
        processes.all_reduce_sum(share.ignored),
    )  # whole numbers: the sum is exact
    if network.pictures:
        worst = lowest(image for images in processes.gather(worst) for image in images)
        if processes.is_first:
            title = (
                f"{network.name}: mIoU {percent(scores(matrix).miou)} % on {len(listing)} images"
            )
            write_png(
                network.pictures / "confusion_matrix.png",
                confusion_picture(matrix.numpy(), CLASS_NAMES, title),
            )
            write_png(network.pictures / "worst_images.png", worst_images(listing, worst))

    warnings = []
    seen = {
        Path(name).name for name in checkpoint["seen_images"]
    }  # without the city's folder, which images named one by one lack
    seen &= {Path(name).name for name in listing.names}
    if seen:
        warnings.append(
            f"{checkpoint['name']} was trained or adapted on {len(seen)} of the {len(listing)}"
            " images it is scored on."
        )
    if checkpoint.get("chosen_with_labels"):
        warnings.append(
            f"{checkpoint['name']} ({path.name}) was chosen by its score on labelled validation"
            " images: report last.pt."
        )
    if args.tta:
        warnings.append(
            f"{network.name} was scored with test-time augmentation: compare it only with scores"
            " that were, too."
        )
    row = {
        "name": network.name,
        "checkpoint": str(path),
        "step": checkpoint["step"],
        "precision": network.precision,
        "tta": args.tta,
    }
    model = BiSeNet(**checkpoint["architecture"])
    deployed = (
        count_parameters(model) - count_parameters(model.aux16) - count_parameters(model.aux32)
    )  # these heads serve training only
    row |= {
        "warnings": warnings,
        "architecture": checkpoint["architecture"],
        "model_parameters": deployed,
    }
    row |= {"model_gmac": ptflops_macs(model, (3, *SIZE)) / 1e9}
    if "discriminator" in checkpoint:
        discriminator = build_discriminator(checkpoint["discriminator"], NUM_CLASSES)
        row |= {
            "discriminator": checkpoint["discriminator"],
            "discriminator_parameters": count_parameters(discriminator),
        }
        row |= {"discriminator_gmac": ptflops_macs(discriminator, (NUM_CLASSES, *SIZE)) / 1e9}
    return (
        row
        | asdict(scores(matrix, ignored, classes))
        | {
            "ignored": ignored,
            "matrix": matrix.tolist(),
        }
    )


def worst_images(listing: ImageList, worst: list[Scored]):
    """The images of ``worst``, a row each: image, prediction, ground truth, and the mistakes
    alone.
    """
    rows, titles = [], []
    for miou, index, prediction in worst:
        frame, train_ids = listing[index], prediction.numpy()
        image, truth = read_image(frame.image), TRAIN_ID_OF[read_label(frame.label)]
        grey = (image.mean(2, keepdims=True) * 0.3 + 170).astype("uint8").repeat(3, 2)
        wrong = (train_ids != truth) & (truth != IGNORE_INDEX)
        grey[wrong] = COLORS[train_ids[wrong]]
        rows.append([image, COLORS[train_ids], COLORS[truth], grey])
        titles.append(
            f"{frame.name}: mean IoU {percent(miou)} %, {percent(wrong.mean())} % of the pixels"
            " wrong"
        )
    return with_legend(
        image_grid(rows, ["image", "prediction", "ground truth", "mistakes"], titles),
        CLASS_NAMES,
        COLORS,
    )


def save_without_scores(path: Path, listing: ImageList, processes: ProcessGroup, args) -> None:
    """Predictions for a split whose labels are hidden."""
    network = Network(path, processes, args)
    batches = network.batches(listing, args.workers)
    for batch in batches:
        prediction = network.predictor(batch.image)
        network.save(listing[int(batch.index[0])].name, prediction[0].cpu())
    saved = processes.all_reduce_sum(len(batches))  # known when every process has saved its share
    if processes.is_first:
        print(
            f"{network.name}: {saved} predictions in {network.predictions}; zip this folder for the"
            " benchmark server. No scores: no labels."
        )


def table_1(rows: list[dict], classes: tuple[int, ...]) -> str:
    """IoU of each class."""
    header = ["IoU, %", *(CLASS_NAMES[c] for c in classes)]
    published = [
        [f"{name} (published)", *(f"{iou[c]:.2f}" for c in classes)]
        for name, iou in TABLE_1.items()
    ]
    return markdown_table(
        header,
        [*published, *([row["name"], *(percent(row["iou"][c]) for c in classes)] for row in rows)],
    )


def table_2(rows: list[dict], classes: tuple[int, ...]) -> str:
    """Accuracies, mIoU and costs. Published means are over 19 classes: beside a subset they would
    mislead, and are left out.
    """
    header = ["%", "pixel acc.", "pixel acc. incl. void", "mean class acc.", "mIoU", "classes"]
    header += ["discriminator", "its MACs", "deployed model", "its MACs"]
    lines = []
    for row in TABLE_2 if len(classes) == NUM_CLASSES else ():
        accuracies = [
            "-" if value is None else f"{value:.2f}"
            for value in (row.pixel_accuracy_with_void, row.mean_class_accuracy)
        ]
        costs = [row.discriminator_parameters, row.discriminator_macs, "-", "-"]
        lines.append([f"{row.name} (published)", "-", *accuracies, f"{row.miou:.2f}", "19", *costs])
    for row in rows:
        measures = ("pixel_accuracy", "pixel_accuracy_with_void", "mean_class_accuracy", "miou")
        costs = ["-", "-"]
        if "discriminator" in row:
            costs = [
                f"{row['discriminator_parameters'] / 1e6:.2f} M",
                f"{row['discriminator_gmac']:.2f} GMac",
            ]
        costs += [f"{row['model_parameters'] / 1e6:.2f} M", f"{row['model_gmac']:.2f} GMac"]
        lines.append(
            [
                row["name"],
                *(percent(row[measure]) for measure in measures),
                str(row["averaged"]),
                *costs,
            ]
        )
    return markdown_table(header, lines)


def report(rows: list[dict], listing: ImageList, classes: tuple[int, ...], args) -> None:
    """Prints the tables and the warnings, and writes the JSON."""
    place = f"{listing.root}" + ("" if args.gta5 else f", split {args.split}")
    augmented = f", test-time augmentation {args.tta}" if args.tta else ""
    print(
        f"\n{len(listing)} images of {place}, full resolution, {rows[0]['precision']}{augmented}.",
        end=" ",
    )
    print("Rows marked (published) are the paper's, not ours.")
    print(
        "\nTable I",
        table_1(rows, classes),
        "\nTable II (MACs at 512x1024 by ptflops)",
        table_2(rows, classes),
        sep="\n",
    )
    for warning in [warning for row in rows for warning in row["warnings"]]:
        print(f"WARNING: {warning}")
    if args.json:
        write_json(
            args.json,
            {
                "images": len(listing),
                "split": args.split,
                "classes": [CLASS_NAMES[c] for c in classes],
                "rows": rows,
            },
        )


def main(args) -> None:
    names = [f"{read_checkpoint(path)['name']}-{path.stem}" for path in args.checkpoints]
    if (args.save_predictions or args.pictures) and len(set(names)) < len(names):
        raise ValueError(
            f"Two of the checkpoints are called the same, {sorted(names)}: their files would"
            " overwrite each other. Score them one by one."
        )
    classes = class_subset(args.classes)
    if args.json:
        output_folder(
            args.json.absolute().parent
        )  # a place that cannot be written to shows now, not after the scoring
    with ProcessGroup(choose_device(args.device)) as processes:
        if args.split == "test" and args.cityscapes:
            listing = select_by_list(cityscapes(args.cityscapes, "test", labels=False), args.list)
            for path in args.checkpoints:
                save_without_scores(path, listing, processes, args)
            return
        listing = select_by_list(
            gta5(args.gta5) if args.gta5 else cityscapes(args.cityscapes, args.split), args.list
        )
        check_listing(listing)
        rows = [
            score_checkpoint(path, listing, classes, processes, args) for path in args.checkpoints
        ]
        if processes.is_first:
            report(rows, listing, classes, args)


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
