"""Recomputes the BatchNorm statistics of a network on target images (AdaBN: Li et al., 2016).

A network normalizes its features with the means and variances of its training images. This script
measures them on unlabelled images of the target: no label is opened and no weight changes. It
writes a new checkpoint that all scripts read; compare it with the old one by eval.py.
"""

if not __package__:  # started by its path: nothing of the project can be imported
    raise SystemExit("error: start it in the project's folder: python -m scripts.recalibrate")

import shlex
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dataset.class_set_file import recorded_class_set
from dataset.listing import ImageList
from dataset.loader import LoaderOptions
from dataset.recalibration import (
    StatisticsOptions,
    recalibration_batches,
    recalibration_images,
    statistics_text,
)
from dataset.target_flags import TargetFlags
from model.loading import load_network
from model.uda.adabn import recalibrate_on
from utils.files import output_file, require_absent
from utils.options.checks import require_layouts, require_statistics_sizes
from utils.options.groups import (
    NO_SPLITS,
    add_device_arguments,
    add_statistics_arguments,
    add_unlabelled_arguments,
    add_workers_argument,
)
from utils.options.parser import (
    from_arguments,
    new_parser,
    user_errors_without_traceback,
)
from utils.training.checkpoint import metadata_of_network, read_checkpoint, save_checkpoint
from utils.training.environment import environment
from utils.training.precision import autocast_for, choose_device, choose_precision

EPILOG = """examples:
  python -m scripts.recalibrate checkpoints/source-only/last.pt --cityscapes $CITYSCAPES
  python -m scripts.recalibrate checkpoints/source-only/last.pt --output dashcam.pt \\
      --target "dashcam/**/*.jpg"
  python eval.py checkpoints/source-only/last.pt checkpoints/source-only/last-adabn.pt \\
      --cityscapes $CITYSCAPES
"""


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__, EPILOG)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="last.pt of a run")
    add_unlabelled_arguments(parser)
    parser.add_argument(
        "--list",
        type=Path,
        metavar="FILE",
        help="use only the images named in this file, one per line",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="new checkpoint; default: beside the old one, last.pt -> last-adabn.pt",
    )
    parser.add_argument(
        "--name", help="name of the network in tables; default: the old name and -adabn"
    )
    add_statistics_arguments(parser)
    add_device_arguments(parser)
    add_workers_argument(parser)
    args = parser.parse_args(argv)
    require_layouts(parser, args.target, args.target_layout)
    if from_arguments(TargetFlags, vars(args)).scored_root is None:
        parser.refuse_unused(parser.given(argv), ["split"], NO_SPLITS)
    require_statistics_sizes(parser, args.batch_size, args.crop_size)
    return args


def recalibrated_metadata(
    args, checkpoint: dict[str, Any], used: ImageList, precision: str
) -> dict[str, Any]:
    """Metadata of the new checkpoint: those of the old one, the settings, and the images used."""
    recalibrated = {
        "images": used.fingerprint(),
        "batch_size": args.batch_size,
        "crop_size": args.crop_size,
        "seed": args.seed,
        "precision": precision,
        "checkpoint": str(args.checkpoint),
        "git": environment()["git"],
    }
    return metadata_of_network(checkpoint) | {
        "name": args.name or f"{checkpoint['name']}-adabn",
        "settings": checkpoint["settings"] | {"recalibrated": recalibrated},
        "seen_images": sorted({*checkpoint["seen_images"], *used.identities}),
    }


def main(args) -> None:
    output = args.output or args.checkpoint.with_name(f"{args.checkpoint.stem}-adabn.pt")
    require_absent(output)
    device = choose_device(args.device)
    precision = choose_precision(args.precision, device)
    checkpoint = read_checkpoint(args.checkpoint)
    model, normalize = load_network(checkpoint, len(recorded_class_set(checkpoint)))
    options = from_arguments(StatisticsOptions, vars(args))
    listing = from_arguments(TargetFlags, vars(args)).images(args.split, args.list)
    used = recalibration_images(listing, options)
    output_file(output)

    loading = LoaderOptions(args.workers, pin_memory=device.type == "cuda")
    batches = recalibration_batches(used, options, loading)
    batches = tqdm(batches, desc=checkpoint["name"], unit="batch", disable=None, dynamic_ncols=True)
    images = (batch.image for batch in batches)
    recalibrate_on(model.to(device), normalize, images, autocast_for(device, precision))
    metadata = recalibrated_metadata(args, checkpoint, used, precision)
    save_checkpoint(output, {"model": model}, **metadata)
    print(
        f"{output}: {metadata['name']}, the weights of {args.checkpoint} with"
        f" {statistics_text(used, args.split)}"
    )
    print(f"Score it: python eval.py {shlex.quote(str(output))} --cityscapes ROOT")


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
