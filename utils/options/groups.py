"""Argument groups and recipes that the entry scripts share. The parsed Namespace stays in the entry
script.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

from utils.options.parser import (
    available_cores,
    non_negative_int,
    positive_float,
    positive_int,
    probability,
)


def add_recipe_argument(parser: argparse.ArgumentParser, recipes: Iterable[str]) -> None:
    parser.add_argument(
        "--recipe",
        choices=tuple(recipes),
        default="paper",
        help=(
            "set of defaults: 'paper' is what the paper describes, 'authors' what its published"
            " code does, 'strong' (of train_da.py) goes beyond the paper, to self-training"
            " (docs/adaptation.md); flags given here win over it"
        ),
    )


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("machine")
    group.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto takes CUDA where there is a GPU",
    )
    group.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16"),
        default="auto",
        help=(
            "arithmetic of the network; losses are always float32. auto: bf16 where the hardware"
            " has it, else fp16 on CUDA, fp32 on a CPU"
        ),
    )


def add_workers_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        type=non_negative_int,
        default=min(8, available_cores()),
        help="processes that read images; 0 reads in the main process. Samples do not depend on it",
    )


def add_unlabelled_arguments(parser: argparse.ArgumentParser) -> None:
    """Images of a target, for scripts that open no label: a split of Cityscapes, or any images."""
    target = parser.add_argument_group("target").add_mutually_exclusive_group(required=True)
    target.add_argument(
        "--cityscapes", type=Path, metavar="ROOT", help="folder with leftImg8bit/, raw or prepared"
    )
    target.add_argument(
        "--target-images",
        nargs="+",
        metavar="PATTERN",
        help="images, folders, or patterns such as 'dashcam/**/*.jpg' (in quotes)",
    )
    parser.add_argument(
        "--split",
        choices=("train", "val"),
        default="train",
        help="of Cityscapes; val holds the images that are scored",
    )


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("network")
    group.add_argument(
        "--backbone",
        choices=("resnet18", "resnet101"),
        help="of the context path; resnet18 is the real-time network",
    )
    group.add_argument(
        "--backbone-weights",
        metavar="none|imagenet|FILE",
        default="imagenet",
        help=(
            "what the backbone starts from: random weights, torchvision's ImageNet weights"
            " (downloaded once), or a torchvision state dict"
        ),
    )
    group.add_argument(
        "--fusion-channels",
        type=positive_int,
        metavar="N",
        help=(
            "width of the fused paths; default: the number of classes, as the paper has it. The"
            " original BiSeNet has 256: slower"
        ),
    )
    group.add_argument(
        "--compile",
        action="store_true",
        help="compile the network with torch.compile: a slow start, then perhaps faster steps",
    )
    group.add_argument(
        "--init",
        type=Path,
        metavar="FILE",
        help="start from the network of another run's checkpoint; steps and optimizer begin anew",
    )


def add_augmentation_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("input and augmentation")
    group.add_argument(
        "--crop-size",
        type=positive_int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        default=(512, 1024),
        help=(
            "training crop in pixels, at least 32 each way; smaller is faster, larger adapts better"
        ),
    )
    group.add_argument(
        "--crop", choices=("random", "centre"), help="where the crop lies in the scaled image"
    )
    group.add_argument(
        "--scales",
        type=positive_float,
        nargs="+",
        metavar="SCALE",
        default=(0.5, 0.75, 1.0, 1.5),
        help="an image is resized by one of these, drawn at random, before it is cropped",
    )
    group.add_argument(
        "--flip", type=probability, default=0.5, metavar="P", help="probability of a mirror image"
    )
    group.add_argument(
        "--rare-classes",
        action=argparse.BooleanOptionalAction,
        default=False,
        help=(
            "draw labelled images so that rare classes come more often (DAFormer); a raw data set's"
            " labels are all read once for it"
        ),
    )
    group.add_argument(
        "--max-class-share",
        type=probability,
        default=1.0,
        metavar="P",
        help=(
            "a labelled image's crop is drawn anew, up to ten times, while one class covers this"
            " share of it or more; 1: never"
        ),
    )
    group.add_argument(
        "--padding",
        choices=("mean", "zero"),
        help="color around scaled images smaller than the crop; their labels are 255 there",
    )
    group.add_argument(
        "--input",
        choices=("imagenet", "step2", "step34"),
        help=(
            "what the network is fed: RGB with ImageNet's mean and std; RGB / 255; or BGR minus a"
            " mean, as the authors' steps 2 and 3-4 do"
        ),
    )


def add_style_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "looks of the labelled images: each with a probability, 1 where none is given after the"
        " flag"
    )
    often = {"type": probability, "nargs": "?", "const": 1.0, "default": 0.0, "metavar": "P"}
    group.add_argument(
        "--lab",
        **often,
        help="the LAB color statistics of a random target image (the paper's step 4)",
    )
    group.add_argument(
        "--lab-by-class",
        action=argparse.BooleanOptionalAction,
        default=False,
        help=(
            "with --lab: a source image's statistics are taken as if its classes covered equal"
            " areas"
        ),
    )
    group.add_argument(
        "--fda",
        **often,
        help=(
            "the amplitudes of a random target image at low frequencies (FDA); an alternative to"
            " --lab"
        ),
    )
    group.add_argument("--jitter", **often, help="random brightness, contrast, saturation and hue")
    group.add_argument("--blur", **often, help="a slight random blur")


def add_optimization_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("optimization")
    group.add_argument(
        "--batch-size",
        type=positive_int,
        help="images per step and domain, over all processes and parts",
    )
    group.add_argument(
        "--accumulate",
        type=positive_int,
        default=1,
        metavar="PARTS",
        help=(
            "compute every batch in so many parts and add up their gradients, for less memory. With"
            " --bn frozen the result is the same"
        ),
    )
    group.add_argument(
        "--bn",
        choices=("local", "sync", "frozen"),
        default="local",
        help=(
            "BatchNorm over the images of one part in one process; over those of all processes"
            " (CUDA only); or frozen at the statistics of --backbone-weights or --init, while its"
            " weights still learn. One image a part needs sync or frozen"
        ),
    )
    group.add_argument(
        "--lr",
        type=positive_float,
        help=(
            "of SGD, at the start. The default suits ImageNet weights; from random weights about"
            " 1e-2 is better (docs/results.md)"
        ),
    )
    group.add_argument(
        "--new-layer-rate",
        type=positive_float,
        default=1.0,
        metavar="FACTOR",
        help=(
            "layers outside the backbone, which start from random weights, learn so many times as"
            " fast"
        ),
    )
    group.add_argument(
        "--warmup",
        type=non_negative_int,
        default=0,
        metavar="STEPS",
        help="the learning rate rises from 0 in the first steps",
    )
    group.add_argument(
        "--pixel-weights",
        choices=("equal", "hard", "class"),
        default="equal",
        help=(
            "in the supervised loss: all pixels equally; only those that the network gets wrong or"
            " is unsure of (OHEM); or rarer classes more"
        ),
    )
    group.add_argument("--momentum", type=probability, default=0.9, help="of SGD")
    group.add_argument(
        "--weight-decay", type=float, default=5e-4, help="of SGD, on every parameter"
    )
    group.add_argument(
        "--seed",
        type=non_negative_int,
        default=0,
        help="of everything random: weights, order, augmentation",
    )
    return group


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("run folder and log")
    group.add_argument("--name", help="of the run; by default made from the settings")
    group.add_argument(
        "--output",
        type=Path,
        default=Path("checkpoints"),
        metavar="FOLDER",
        help="run folders land in FOLDER/NAME",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="continue FOLDER/NAME from its last.pt; give the command of its start",
    )
    group.add_argument(
        "--log-every",
        type=positive_int,
        default=20,
        metavar="STEPS",
        help="losses to TensorBoard and to the screen",
    )
    group.add_argument(
        "--save-every",
        type=positive_int,
        default=500,
        metavar="STEPS",
        help="write last.pt; it is also written at the end and on a signal",
    )
    group.add_argument(
        "--panel-every",
        type=non_negative_int,
        default=1000,
        metavar="STEPS",
        help="pictures to TensorBoard, at most 40 a run; 0: none",
    )


def require_training_sizes(
    parser: argparse.ArgumentParser,
    batch_sizes: list[int],
    crop_size: tuple[int, int],
    accumulate: int,
    processes: int,
    bn: str,
) -> None:
    """Ends with a message where the network could not train: unequal parts, one image a part, or a
    crop under 32 pixels.
    """
    parts = accumulate * processes
    for size in batch_sizes:
        if size % parts:
            parser.error(
                f"a batch of {size} images cannot be shared by {processes} processes x {accumulate}"
                f" parts; choose a multiple of {parts}"
            )
    smallest = min(batch_sizes) // parts
    if smallest * (processes if bn == "sync" else 1) < 2 and bn != "frozen":
        remedy = (
            ""
            if parts == 1
            else f" (with {processes} processes x {accumulate} parts a batch of {2 * parts})"
        )
        parser.error(
            f"BatchNorm needs at least 2 images, found {smallest} in a part: the attention's"
            f" BatchNorm cannot normalize a single 1x1 map. Give a larger batch{remedy}, --bn sync"
            " with several GPUs, or --bn frozen"
        )
    if min(crop_size) < 32:
        parser.error(
            f"--crop-size needs at least 32 pixels each way, found {crop_size[0]} {crop_size[1]}:"
            " the network halves its input five times"
        )


def batch_norm_group_sizes(
    batch_sizes: list[int], accumulate: int, processes: int, bn: str
) -> list[int] | str:
    """What the settings of parallel work change in a run's results, beside rounding: how many
    images each BatchNorm sees at once.
    """
    if bn == "frozen":
        return "none"
    return [size // accumulate // (1 if bn == "sync" else processes) for size in batch_sizes]
