"""Recomputes the BatchNorm statistics of a network on target images (AdaBN: Li et al., 2016).

A network normalizes its features with the means and variances of its training images. This script
measures them on unlabelled images of the target: no label is opened and no weight changes. It
writes a new checkpoint that all scripts read; compare it with the old one by eval.py.
"""

if not __package__:  # started by its path: nothing of the project can be imported
    raise SystemExit("error: start it in the project's folder: python -m scripts.recalibrate")

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from dataset.class_set import recorded_class_set
from dataset.image_io import image_size
from dataset.listing import ImageList
from dataset.loader import LoaderOptions, training_loader
from dataset.sampling import ShuffledIndex
from dataset.segmentation import SegmentationDataset
from dataset.training_data import known_root, read_target
from dataset.transforms import RandomScaleCropFlip, WholeImage
from model.loading import load_network
from model.uda.adabn import recalibrate
from utils.files import output_folder
from utils.options.groups import (
    add_device_arguments,
    add_unlabelled_arguments,
    add_workers_argument,
)
from utils.options.parser import (
    new_parser,
    non_negative_int,
    positive_int,
    user_errors_without_traceback,
)
from utils.training.checkpoint import read_checkpoint, save_checkpoint
from utils.training.environment import environment
from utils.training.precision import autocast_for, choose_device, choose_precision

EPILOG = """examples:
  python -m scripts.recalibrate checkpoints/source-only/last.pt --cityscapes $CITYSCAPES
  python -m scripts.recalibrate checkpoints/source-only/last.pt --output dashcam.pt \\
      --target "dashcam/**/*.jpg"
  python eval.py checkpoints/source-only/last.pt checkpoints/source-only/last-adabn.pt \\
      --cityscapes $CITYSCAPES
"""
FEW_IMAGES = 64
"""Fewer images give a poor variance: the attention's BatchNorm sees one value of each image."""


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
    if known_root(args.cityscapes, args.target) is None:
        condition = "with images that are no Cityscapes root: they have no splits"
        parser.refuse_unused(parser.given(argv), ["split"], condition)
    if args.batch_size < 2:
        parser.error(
            "--batch-size needs at least 2: the attention's BatchNorm cannot normalize the single"
            " value of one image"
        )
    if args.crop_size and min(args.crop_size) < 32:
        parser.error(
            "--crop-size needs at least 32 pixels each way: the network halves its input five times"
        )
    return args


def add_statistics_arguments(parser) -> None:
    group = parser.add_argument_group("statistics")
    group.add_argument(
        "--batches",
        type=positive_int,
        default=100,
        help="largest number of batches; images are drawn at random without replacement",
    )
    group.add_argument(
        "--batch-size",
        type=positive_int,
        default=4,
        help="images that are normalized together, at least 2",
    )
    group.add_argument(
        "--crop-size",
        type=positive_int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="random crop of each image in pixels, for images of different sizes; default: no crop",
    )
    group.add_argument(
        "--seed", type=non_negative_int, default=0, help="seed of the choice of images and crops"
    )


def require_sizes(listing: ImageList, crop_size: tuple[int, int] | None) -> None:
    """Raises ValueError for images of different sizes, or smaller than ``crop_size``.

    Padding would count as color of the target. Sizes are (height, width).
    """
    paths = [listing[index].image for index in range(len(listing))]
    sizes = [image_size(path) for path in paths]
    if crop_size is None and len(set(sizes)) > 1:
        other = next(index for index, size in enumerate(sizes) if size != sizes[0])
        raise ValueError(
            f"{paths[0]} is {sizes[0]} and {paths[other]} is {sizes[other]} (height, width): whole"
            " images of different sizes make no batch. Add --crop-size HEIGHT WIDTH, no larger"
            " than the smallest image."
        )
    for path, size in zip(paths, sizes, strict=True):
        if crop_size is not None and (size[0] < crop_size[0] or size[1] < crop_size[1]):
            raise ValueError(
                f"{path} is {size} (height, width), smaller than --crop-size {crop_size}. Choose a"
                " smaller crop."
            )


def choose_images(args) -> ImageList:
    """Draws the images to measure at random, in whole batches; raises ValueError for too few."""
    listing = read_target(args.cityscapes, args.target, args.split, args.list)
    batches = min(args.batches, len(listing) // args.batch_size)
    if not batches:
        raise ValueError(
            f"Found {len(listing)} images, fewer than one batch of {args.batch_size}. Give more"
            f" images, {FEW_IMAGES} or more are of use."
        )
    order = ShuffledIndex(len(listing), args.seed, rng_stream=0)
    return listing.subset([order(position) for position in range(batches * args.batch_size)])


def image_batches(
    args, listing: ImageList, crop_size: tuple[int, int] | None, device: torch.device, title: str
) -> Iterator[Tensor]:
    """Yields batches (N, H, W, 3) uint8 on the device, with a progress bar called ``title``."""
    geometry = WholeImage() if crop_size is None else RandomScaleCropFlip((1.0,), crop_size)
    dataset = SegmentationDataset(listing, geometry, seed=args.seed)
    loading = LoaderOptions(args.workers, pin_memory=device.type == "cuda")
    batches = len(listing) // args.batch_size
    loader = training_loader(dataset, args.batch_size, range(batches), loading)
    for batch in tqdm(loader, desc=title, unit="batch", disable=None, dynamic_ncols=True):
        yield batch.image.to(device, non_blocking=True)


def recalibrated_metadata(
    args, checkpoint: dict[str, Any], used: ImageList, precision: str
) -> dict[str, Any]:
    """Metadata of the new checkpoint: those of the old one, the settings, and the images used."""
    metadata = {
        name: value
        for name, value in checkpoint.items()
        if name
        not in ("format", "parts", "random", "meter", "collapse_monitor", "inference_network")
    }
    recalibrated = {
        "images": used.fingerprint(),
        "batch_size": args.batch_size,
        "crop_size": args.crop_size,
        "seed": args.seed,
        "precision": precision,
        "checkpoint": str(args.checkpoint),
        "git": environment()["git"],
    }
    return metadata | {
        "name": args.name or f"{checkpoint['name']}-adabn",
        "settings": checkpoint["settings"] | {"recalibrated": recalibrated},
        "seen_images": sorted({*checkpoint["seen_images"], *used.identities}),
    }


def main(args) -> None:
    output = args.output or args.checkpoint.with_name(f"{args.checkpoint.stem}-adabn.pt")
    if output.exists():
        raise FileExistsError(f"{output} exists. Choose another --output, or delete it.")
    device = choose_device(args.device)
    precision = choose_precision(args.precision, device)
    checkpoint = read_checkpoint(args.checkpoint)
    model, normalize = load_network(checkpoint, len(recorded_class_set(checkpoint)))
    used = choose_images(args)
    crop_size = None if args.crop_size is None else tuple(args.crop_size)
    require_sizes(used, crop_size)
    output_folder(output.absolute().parent)

    images = image_batches(args, used, crop_size, device, checkpoint["name"])
    with autocast_for(device, precision)():
        count = recalibrate(model.to(device), map(normalize, images))
    metadata = recalibrated_metadata(args, checkpoint, used, precision)
    save_checkpoint(output, {"model": model}, **metadata)
    print(
        f"{output}: {metadata['name']}, the weights of {args.checkpoint} with the BatchNorm"
        f" statistics of {count} images of {used.root}."
    )
    if count < FEW_IMAGES:
        print(
            f"WARNING: {count} images are few for the statistics of the attention, which sees one"
            f" value of each. Give {FEW_IMAGES} or more."
        )
    if args.split == "val":
        print(
            "WARNING: --split val takes the statistics of images of the evaluation (transductive)."
        )
    print(f"Score it: python eval.py {shlex.quote(str(output))} --cityscapes ROOT")


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
