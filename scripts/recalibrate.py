"""Gives a trained network the BatchNorm statistics of the target's images, and changes nothing else
(AdaBN: Li et al., 2016).

A network normalizes its features with the means and variances of the images that it was trained on.
Here they are measured anew on unlabelled images of the target: no label is opened and no weight
moves. Writes a new checkpoint, which every script reads like the old one; whether it is the better
one, eval.py tells.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from dataset.cityscapes import cityscapes
from dataset.image_io import image_size
from dataset.labels import NUM_CLASSES
from dataset.listing import ImageList, select_by_list
from dataset.loader import Loading, training_loader
from dataset.sampling import ShuffledIndex
from dataset.segmentation import SegmentationDataset
from dataset.target import unlabelled_images
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
  python -m scripts.recalibrate checkpoints/source-only/last.pt --target-images "dashcam/**/*.jpg" --output dashcam.pt
  python eval.py checkpoints/source-only/last.pt checkpoints/source-only/last-adabn.pt --cityscapes $CITYSCAPES
"""
FEW = 64
"""Of images: the attention's BatchNorms see one value of each, so that fewer give a poor
variance.
"""


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__, EPILOG)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="last.pt of a run")
    add_unlabelled_arguments(parser)
    parser.add_argument(
        "--list",
        type=Path,
        metavar="FILE",
        help="use only the images that this file names, one a line",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="the new checkpoint; default: beside the old one, last.pt -> last-adabn.pt",
    )
    parser.add_argument(
        "--name", help="of the network in tables; default: the old one's with -adabn"
    )
    statistics = parser.add_argument_group("statistics")
    statistics.add_argument(
        "--batches",
        type=positive_int,
        default=100,
        help="at most so many, no image twice; they are drawn at random",
    )
    statistics.add_argument(
        "--batch-size",
        type=positive_int,
        default=4,
        help="images that are normalized together, at least 2",
    )
    statistics.add_argument(
        "--crop-size",
        type=positive_int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help=(
            "a random crop of each image, in pixels, for images of different sizes or little"
            " memory; default: whole images, as in use"
        ),
    )
    statistics.add_argument(
        "--seed", type=non_negative_int, default=0, help="of the choice of images and crops"
    )
    add_device_arguments(parser)
    add_workers_argument(parser)
    args = parser.parse_args(argv)
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


def require_sizes(listing: ImageList, crop_size: tuple[int, int] | None) -> None:
    """Raises ValueError for images that do not fit into one batch, or are smaller than the crop:
    padding would count as the target's color.
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


def metadata_of(
    args, checkpoint: dict[str, Any], used: ImageList, precision: str
) -> dict[str, Any]:
    """What the new checkpoint says of itself: what the old one said, on what it was recalibrated,
    and that it has seen these images.
    """
    metadata = {
        name: value
        for name, value in checkpoint.items()
        if name not in ("format", "parts", "random")
    }
    how = {
        "images": used.fingerprint(),
        "batch_size": args.batch_size,
        "crop_size": args.crop_size,
        "seed": args.seed,
        "precision": precision,
    }
    how |= {"checkpoint": str(args.checkpoint), "git": environment()["git"]}
    return metadata | {
        "name": args.name or f"{checkpoint['name']}-adabn",
        "settings": checkpoint["settings"] | {"recalibrated": how},
        "seen_images": sorted({*checkpoint["seen_images"], *used.names}),
    }


def main(args) -> None:
    output = args.output or args.checkpoint.with_name(f"{args.checkpoint.stem}-adabn.pt")
    if output.exists():
        raise FileExistsError(f"{output} exists. Choose another --output, or delete it.")
    device = choose_device(args.device)
    precision = choose_precision(args.precision, device)
    checkpoint = read_checkpoint(args.checkpoint)
    model, normalize = load_network(checkpoint, NUM_CLASSES)

    listing = (
        unlabelled_images(args.target_images)
        if args.target_images
        else cityscapes(args.cityscapes, args.split, labels=False)
    )
    listing = select_by_list(listing, args.list)
    batches = min(args.batches, len(listing) // args.batch_size)
    if not batches:
        raise ValueError(
            f"Found {len(listing)} images, fewer than one batch of {args.batch_size}. Give more"
            f" images, {FEW} or more are of use."
        )
    order = ShuffledIndex(len(listing), args.seed, rng_stream=0)
    used = listing.subset(order(position) for position in range(batches * args.batch_size))
    crop_size = None if args.crop_size is None else tuple(args.crop_size)
    require_sizes(used, crop_size)
    output_folder(output.absolute().parent)

    geometry = WholeImage() if crop_size is None else RandomScaleCropFlip((1.0,), crop_size)
    dataset = SegmentationDataset(used, geometry, seed=args.seed)
    loading = Loading(args.workers, pin_memory=device.type == "cuda")
    loader = training_loader(dataset, args.batch_size, range(batches), loading)

    def images() -> Iterator[Tensor]:
        for batch in tqdm(
            loader, desc=checkpoint["name"], unit="batch", disable=None, dynamic_ncols=True
        ):
            yield normalize(batch.image.to(device, non_blocking=True))  # (N, 3, H, W)

    with autocast_for(device, precision)():
        seen = recalibrate(model.to(device), images())
    metadata = metadata_of(args, checkpoint, used, precision)
    save_checkpoint(output, {"model": model}, **metadata)
    print(
        f"{output}: {metadata['name']}, the weights of {args.checkpoint} with the BatchNorm statistics"
        f" of {seen} images of {listing.root}."
    )
    if seen < FEW:
        print(
            f"WARNING: {seen} images are few for the statistics of the attention, which sees one"
            f" value of each. Give {FEW} or more."
        )
    if args.split == "val":
        print(
            "WARNING: --split val takes the statistics of the very images that are scored"
            " (transductive)."
        )
    print(f"Score it: python eval.py {output} --cityscapes ROOT")


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
