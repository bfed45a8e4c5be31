"""Groups of flags that entry scripts share. The parsed Namespace stays in the entry script."""

import argparse
from pathlib import Path

from utils.options.parser import (
    available_cores,
    image_scale,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
    probability,
)

ESSENTIAL = frozenset(
    ("recipe", "gta5", "cityscapes", "target", "train_on", "list", "source_list", "target_list")
    + ("class_set", "source_layout", "target_layout", "method", "lab", "fda")
    + ("backbone", "backbone_weights", "init", "crop_size", "scales", "pixel_weights")
    + ("rare_class_sampling", "batch_size", "accumulate", "bn", "lr", "epochs", "max_steps")
    + ("seed", "device", "precision", "workers", "name", "output", "resume", "save_every")
    + ("validate_every",)
)
"""The flags of the training scripts that --help shows, beside those of methods (``option``)."""


def add_source_argument(group: argparse._ArgumentGroup, **settings) -> None:
    """--source ROOT, which the paper's pages call --gta5: labelled images."""
    group.add_argument(
        "--source",
        "--gta5",
        dest="gta5",
        type=Path,
        metavar="ROOT",
        help="labelled source: GTA5, SYNTHIA, ... (docs/data.md), or your own (docs/own_data.md)",
        **settings,
    )


def add_class_arguments(group: argparse._ArgumentGroup) -> None:
    """--class-set, --source-layout and --target-layout."""
    group.add_argument(
        "--class-set",
        metavar="NAME|FILE",
        help="classes: cityscapes19, camvid11, ... or a TOML file; default: those of the data set",
    )
    for name in ("source", "target"):
        group.add_argument(
            f"--{name}-layout",
            metavar="NAME|FILE",
            help=f"layout of the {name}: gta5, acdc, ... or a TOML file; default: recognized",
        )


def add_target_arguments(group: argparse._ArgumentGroup) -> None:
    """--target ROOT|PATTERN and --cityscapes ROOT: images that need no labels."""
    group.add_argument(
        "--target",
        "--target-images",
        dest="target",
        nargs="+",
        metavar="ROOT|PATTERN",
        help="target images: root of a known data set, or files, folders, patterns in quotes",
    )
    group.add_argument(
        "--cityscapes", type=Path, metavar="ROOT", help="target: folder with leftImg8bit/"
    )


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """--device and --precision."""
    group = parser.add_argument_group("device")
    group.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="device to compute on; auto: CUDA if there is a GPU",
    )
    group.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16"),
        default="auto",
        help="precision; auto: bf16 if the hardware has it, else fp16 (CUDA) or fp32 (CPU)",
    )


def add_workers_argument(parser: argparse.ArgumentParser) -> None:
    """--workers."""
    parser.add_argument_group("data loading").add_argument(
        "--workers",
        type=non_negative_int,
        default=min(8, available_cores()),
        help="processes that read images; 0: the main process. Samples do not depend on it",
    )


NO_SPLITS = "with plain images: only a root of a known data set, or --target-layout, has splits"
"""Why --split of ``add_unlabelled_arguments`` is refused."""


def add_unlabelled_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Images of a target, for scripts that open no label."""
    target = parser.add_argument_group("target").add_mutually_exclusive_group(required=required)
    add_target_arguments(target)
    parser.add_argument(
        "--target-layout",
        metavar="NAME|FILE",
        help="layout of --target ROOT: acdc, ... or a TOML file; default: recognized",
    )
    parser.add_argument(
        "--split",
        choices=("train", "val"),
        default="train",
        help="split of a known data set; val usually holds the images that are scored",
    )


def add_statistics_arguments(parser: argparse.ArgumentParser) -> None:
    """Target images on which BatchNorm statistics are measured."""
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


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """The network and its initial weights."""
    group = parser.add_argument_group("network")
    group.add_argument(
        "--backbone",
        choices=("resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2"),
        help="backbone of the context path; real time: resnet18, and the lighter mobilenet_v2",
    )
    group.add_argument(
        "--backbone-weights",
        metavar="none|imagenet|FILE",
        default="imagenet",
        help="initial weights of the backbone: random, torchvision's (downloaded), or a state dict",
    )
    group.add_argument(
        "--fusion-channels",
        type=positive_int,
        metavar="N",
        help="width of the feature fusion; default: 19 for 19 classes (paper), else 64 or more",
    )
    group.add_argument(
        "--init",
        type=Path,
        metavar="FILE",
        help="checkpoint with initial weights of the network; steps and optimizer start from zero",
    )
    group.add_argument(
        "--compile", action="store_true", help="compile the network with torch.compile"
    )


def add_augmentation_arguments(parser: argparse.ArgumentParser) -> None:
    """Crops of training images, and the input convention."""
    group = parser.add_argument_group("input and augmentation")
    group.add_argument(
        "--crop-size",
        type=positive_int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        default=(512, 1024),
        help="training crop in pixels, at least 32 each way",
    )
    group.add_argument(
        "--scales",
        type=image_scale,
        nargs="+",
        metavar="SCALE",
        default=(0.5, 0.75, 1.0, 1.5),
        help="scale factors, one of which is drawn for every image before it is cropped",
    )
    group.add_argument(
        "--flip", type=probability, default=0.5, metavar="P", help="probability of a mirror image"
    )
    group.add_argument(
        "--crop", choices=("random", "centre"), help="position of the crop in the scaled image"
    )
    group.add_argument(
        "--padding",
        choices=("mean", "zero"),
        help="color around scaled images smaller than the crop; their labels are 255 there",
    )
    group.add_argument(
        "--input",
        choices=("imagenet", "unit_rgb", "caffe_bgr"),
        help="input: RGB with ImageNet mean and std; RGB / 255; BGR minus a mean (authors)",
    )
    group.add_argument(
        "--rare-class-sampling",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="draw rare classes more often, by labelled images with many pixels of them (DAFormer)",
    )
    group.add_argument(
        "--cat-max-ratio",
        type=probability,
        default=1.0,
        metavar="P",
        help="redraw a labelled crop (up to 10 times) while one class covers this fraction or more",
    )


def add_style_arguments(parser: argparse.ArgumentParser) -> None:
    """Style augmentation of labelled images."""
    group = parser.add_argument_group(
        "style augmentation of labelled images (probability; 1 if no value is given)"
    )
    style = {"type": probability, "nargs": "?", "const": 1.0, "default": 0.0, "metavar": "P"}
    group.add_argument(
        "--lab", **style, help="LAB color statistics of a random target image (the paper's step 4)"
    )
    group.add_argument(
        "--lab-class-balanced",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="with --lab: source statistics with equal weight for every class",
    )
    group.add_argument(
        "--fda", **style, help="low-frequency amplitudes of a random target image (FDA)"
    )
    group.add_argument("--jitter", **style, help="random brightness, contrast, saturation and hue")
    group.add_argument("--blur", **style, help="random slight Gaussian blur")


def add_optimization_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Batch, loss and optimizer; returns the group."""
    group = parser.add_argument_group("optimization")
    group.add_argument(
        "--batch-size", type=positive_int, help="images per step and domain, over all processes"
    )
    group.add_argument(
        "--accumulate",
        type=positive_int,
        default=1,
        metavar="N",
        help="gradient accumulation: number of micro-batches per step, to save memory",
    )
    group.add_argument(
        "--bn",
        choices=("local", "sync", "frozen"),
        default="local",
        help="BatchNorm over a micro-batch, over all processes (CUDA), or frozen statistics",
    )
    group.add_argument(
        "--lr",
        type=positive_float,
        help="initial learning rate of SGD; we use 1e-2 (ImageNet weights), 2e-2 (random weights)",
    )
    group.add_argument(
        "--head-lr-mult",
        type=positive_float,
        default=1.0,
        metavar="FACTOR",
        help="learning-rate multiplier of all layers outside the backbone",
    )
    group.add_argument(
        "--warmup",
        type=non_negative_int,
        default=0,
        metavar="STEPS",
        help="steps in which the learning rate rises from 0",
    )
    _add_pixel_weight_arguments(group)
    group.add_argument("--momentum", type=probability, default=0.9, help="momentum of SGD")
    group.add_argument(
        "--weight-decay",
        type=non_negative_float,
        default=5e-4,
        help="weight decay of SGD, of all parameters",
    )
    group.add_argument(
        "--seed", type=non_negative_int, default=0, help="seed of weights, order and augmentation"
    )
    return group


def _add_pixel_weight_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--pixel-weights",
        choices=("none", "ohem", "class"),
        default="none",
        help="none; ohem (hard pixels; slower with --accumulate); class (rare ones more)",
    )
    group.add_argument(
        "--logit-adjustment",
        type=probability,
        default=0.0,
        metavar="FRACTION",
        help="part of the log class weights that the loss adds to the logits: rare classes are"
        " predicted less often",
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """The run folder and its log; returns the group."""
    group = parser.add_argument_group("run folder and log")
    group.add_argument("--name", help="name of the run; by default made from the settings")
    group.add_argument(
        "--output",
        type=Path,
        default=Path("checkpoints"),
        metavar="FOLDER",
        help="folder of run folders: FOLDER/NAME",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="continue FOLDER/NAME from its last.pt; give the command of its start",
    )
    group.add_argument(
        "--leave-out",
        nargs="+",
        metavar="NAME",
        help="images to leave out of all data, such as damaged ones; also of a run that is resumed",
    )
    group.add_argument(
        "--log-every",
        type=positive_int,
        default=20,
        metavar="STEPS",
        help="interval of losses, in TensorBoard and on the screen",
    )
    group.add_argument(
        "--save-every",
        type=positive_int,
        default=500,
        metavar="STEPS",
        help="interval of last.pt, which is also written at the end and when a run is stopped",
    )
    group.add_argument(
        "--keep-every",
        type=non_negative_int,
        default=0,
        metavar="STEPS",
        help="interval of snapshots (step_*.pt): checkpoints that stay, network only; 0: none",
    )
    group.add_argument(
        "--keep-last",
        type=positive_int,
        metavar="N",
        help="keep only the N newest snapshots of the run; default: all",
    )
    group.add_argument(
        "--panel-every",
        type=non_negative_int,
        default=1000,
        metavar="STEPS",
        help="interval of pictures in TensorBoard, at most 40 per run; 0: none",
    )
    return group


def add_training_arguments(
    parser: argparse.ArgumentParser,
) -> tuple[argparse._ArgumentGroup, argparse._ArgumentGroup]:
    """All groups that both training scripts have; returns those of optimization and run folder."""
    add_style_arguments(parser)
    add_network_arguments(parser)
    add_augmentation_arguments(parser)
    optimization = add_optimization_arguments(parser)
    add_device_arguments(parser)
    add_workers_argument(parser)
    return optimization, add_run_arguments(parser)
