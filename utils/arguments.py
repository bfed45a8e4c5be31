"""Argument groups and recipes that the entry scripts share. The parsed Namespace stays in the entry script."""

import argparse
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def new_parser(description: str, epilog: str = "") -> argparse.ArgumentParser:
    """A parser whose help keeps the line breaks of its texts and shows every default."""

    class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
        pass

    return argparse.ArgumentParser(description=description, epilog=epilog, formatter_class=Formatter)


def parse_with_recipe(parser: argparse.ArgumentParser, recipes: dict[str, dict], argv: list[str] | None) -> argparse.Namespace:
    """Parses ``argv`` with the defaults of the recipe that it names; whatever is given explicitly wins."""
    parser.set_defaults(**recipes["paper"])
    recipe = parser.parse_known_args(argv)[0].recipe
    parser.set_defaults(**recipes[recipe])
    return parser.parse_args(argv)


def positive(text: str) -> int:
    """An argparse type: an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {value}")
    return value


def count(text: str) -> int:
    """An argparse type: an integer of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected at least 0, found {value}")
    return value


def rate(text: str) -> float:
    """An argparse type: a finite number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a finite number above 0, found {text}")
    return value


def share(text: str) -> float:
    """An argparse type: a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, found {text}")
    return value


def available_cores() -> int:
    """The cores that this process may use: fewer than the machine has where a scheduler says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def add_recipe_argument(parser: argparse.ArgumentParser, recipes: Iterable[str]) -> None:
    parser.add_argument(
        "--recipe",
        choices=tuple(recipes),
        default="paper",
        help="set of defaults: 'paper' is what the paper describes, 'authors' what its published code does, 'strong' (of train_da.py) goes beyond "
        "the paper, to self-training (docs/adaptation.md); flags given here win over it",
    )


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("machine")
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes CUDA where there is a GPU")
    group.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16"),
        default="auto",
        help="arithmetic of the network; losses are always float32. auto: bf16 where the hardware has it, else fp16 on CUDA, fp32 on a CPU",
    )


def add_workers_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        type=count,
        default=min(8, available_cores()),
        help="processes that read images; 0 reads in the main process. Samples do not depend on it",
    )


def add_unlabelled_arguments(parser: argparse.ArgumentParser) -> None:
    """Images of a target, for scripts that open no label: a split of Cityscapes, or any images."""
    target = parser.add_argument_group("target").add_mutually_exclusive_group(required=True)
    target.add_argument("--cityscapes", type=Path, metavar="ROOT", help="folder with leftImg8bit/, raw or prepared")
    target.add_argument("--target-images", nargs="+", metavar="PATTERN", help="images, folders, or patterns such as 'dashcam/**/*.jpg' (in quotes)")
    parser.add_argument("--split", choices=("train", "val"), default="train", help="of Cityscapes; val holds the images that are scored")


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("network")
    group.add_argument("--backbone", choices=("resnet18", "resnet101"), help="of the context path; resnet18 is the real-time network")
    group.add_argument(
        "--backbone-weights",
        metavar="none|imagenet|FILE",
        default="imagenet",
        help="what the backbone starts from: random weights, torchvision's ImageNet weights (downloaded once), or a torchvision state dict",
    )
    group.add_argument(
        "--fusion-channels",
        type=positive,
        metavar="N",
        help="width of the fused paths; default: the number of classes, as the paper has it. The original BiSeNet has 256: slower",
    )
    group.add_argument("--compile", action="store_true", help="compile the network with torch.compile: a slow start, then perhaps faster steps")
    group.add_argument("--init", type=Path, metavar="FILE", help="start from the network of another run's checkpoint; steps and optimiser begin anew")


def add_augmentation_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("input and augmentation")
    group.add_argument(
        "--crop-size",
        type=positive,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        default=(512, 1024),
        help="training crop in pixels, at least 32 each way; smaller is faster, larger adapts better",
    )
    group.add_argument("--crop", choices=("random", "centre"), help="where the crop lies in the scaled image")
    group.add_argument(
        "--scales",
        type=rate,
        nargs="+",
        metavar="SCALE",
        default=(0.5, 0.75, 1.0, 1.5),
        help="an image is resized by one of these, drawn at random, before it is cropped",
    )
    group.add_argument("--flip", type=share, default=0.5, metavar="P", help="probability of a mirror image")
    group.add_argument(
        "--rare-classes",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="draw labelled images so that rare classes come more often (DAFormer); a raw data set's labels are all read once for it",
    )
    group.add_argument(
        "--max-class-share",
        type=share,
        default=1.0,
        metavar="P",
        help="a labelled image's crop is drawn anew, up to ten times, while one class covers this share of it or more; 1: never",
    )
    group.add_argument("--padding", choices=("mean", "zero"), help="colour around scaled images smaller than the crop; their labels are 255 there")
    group.add_argument(
        "--input",
        choices=("imagenet", "step2", "step34"),
        help="what the network is fed: RGB with ImageNet's mean and std; RGB / 255; or BGR minus a mean, as the authors' steps 2 and 3-4 do",
    )


def add_style_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("looks of the labelled images: each with a probability, 1 where none is given after the flag")
    often = {"type": share, "nargs": "?", "const": 1.0, "default": 0.0, "metavar": "P"}
    group.add_argument("--lab", **often, help="the LAB colour statistics of a random target image (the paper's step 4)")
    group.add_argument(
        "--lab-by-class",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="with --lab: a source image's statistics are taken as if its classes covered equal areas",
    )
    group.add_argument("--fda", **often, help="the amplitudes of a random target image at low frequencies (FDA); an alternative to --lab")
    group.add_argument("--jitter", **often, help="random brightness, contrast, saturation and hue")
    group.add_argument("--blur", **often, help="a slight random blur")


def add_optimisation_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("optimisation")
    group.add_argument("--batch-size", type=positive, help="images per step and domain, over all processes and parts")
    group.add_argument(
        "--accumulate",
        type=positive,
        default=1,
        metavar="PARTS",
        help="compute every batch in so many parts and add up their gradients, for less memory. With --bn frozen the result is the same",
    )
    group.add_argument(
        "--bn",
        choices=("local", "sync", "frozen"),
        default="local",
        help="BatchNorm over the images of one part in one process; over those of all processes (CUDA only); or frozen at the statistics of "
        "--backbone-weights or --init, while its weights still learn. One image a part needs sync or frozen",
    )
    group.add_argument(
        "--lr", type=rate, help="of SGD, at the start. The default suits ImageNet weights; from random weights about 1e-2 is better (docs/results.md)"
    )
    group.add_argument(
        "--new-layer-rate",
        type=rate,
        default=1.0,
        metavar="FACTOR",
        help="layers outside the backbone, which start from random weights, learn so many times as fast",
    )
    group.add_argument("--warmup", type=count, default=0, metavar="STEPS", help="the learning rate rises from 0 in the first steps")
    group.add_argument(
        "--pixel-weights",
        choices=("equal", "hard", "class"),
        default="equal",
        help="in the supervised loss: all pixels equally; only those that the network gets wrong or is unsure of (OHEM); or rarer classes more",
    )
    group.add_argument("--momentum", type=share, default=0.9, help="of SGD")
    group.add_argument("--weight-decay", type=float, default=5e-4, help="of SGD, on every parameter")
    group.add_argument("--seed", type=count, default=0, help="of everything random: weights, order, augmentation")
    return group


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("run folder and log")
    group.add_argument("--name", help="of the run; by default made from the settings")
    group.add_argument("--output", type=Path, default=Path("checkpoints"), metavar="FOLDER", help="run folders land in FOLDER/NAME")
    group.add_argument("--resume", action="store_true", help="continue FOLDER/NAME from its last.pt; give the command of its start")
    group.add_argument("--log-every", type=positive, default=20, metavar="STEPS", help="losses to TensorBoard and to the screen")
    group.add_argument(
        "--save-every", type=positive, default=500, metavar="STEPS", help="write last.pt; it is also written at the end and on a signal"
    )
    group.add_argument("--panel-every", type=count, default=1000, metavar="STEPS", help="pictures to TensorBoard, at most 40 a run; 0: none")


def require_training_sizes(
    parser: argparse.ArgumentParser, batch_sizes: list[int], crop_size: tuple[int, int], accumulate: int, processes: int, bn: str
) -> None:
    """Ends with a message where the network could not train: unequal parts, one image a part, or a crop under 32 pixels."""
    parts = accumulate * processes
    for size in batch_sizes:
        if size % parts:
            parser.error(f"a batch of {size} images cannot be shared by {processes} processes x {accumulate} parts; choose a multiple of {parts}")
    smallest = min(batch_sizes) // parts
    if smallest * (processes if bn == "sync" else 1) < 2 and bn != "frozen":
        remedy = "" if parts == 1 else f" (with {processes} processes x {accumulate} parts a batch of {2 * parts})"
        parser.error(
            f"BatchNorm needs at least 2 images, found {smallest} in a part: the attention's BatchNorm cannot normalise a single 1x1 map. "
            f"Give a larger batch{remedy}, --bn sync with several GPUs, or --bn frozen"
        )
    if min(crop_size) < 32:
        parser.error(f"--crop-size needs at least 32 pixels each way, found {crop_size[0]} {crop_size[1]}: the network halves its input five times")


def images_normalised_together(batch_sizes: list[int], accumulate: int, processes: int, bn: str) -> list[int] | str:
    """What the settings of parallel work change in a run's results, beside rounding: how many images each BatchNorm sees at once."""
    if bn == "frozen":
        return "none"
    return [size // accumulate // (1 if bn == "sync" else processes) for size in batch_sizes]


@contextmanager
def clear_errors() -> Iterator[None]:
    """Ends with the message alone where the project itself raised it: the user needs the remedy. Other errors keep their traceback."""
    try:
        yield
    except (ValueError, OSError, FloatingPointError) as error:
        frame = list(traceback.walk_tb(error.__traceback__))[-1][0]
        place, message = frame.f_code.co_filename, str(error)
        if message.startswith("Caught ") and "DataLoader worker" in message:  # the worker's own traceback is the message
            places = re.findall(r'^  File "(.+)", line \d+, in ', message, re.MULTILINE)
            place, message = places[-1], message.rsplit(f"{type(error).__name__}: ", 1)[-1].strip()
        if not Path(place).is_relative_to(Path(__file__).parents[1]) or ".venv" in place:
            raise
        sys.exit(f"error: {message}")
