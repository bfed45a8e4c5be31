"""The flags that choose a method of adaptation and shape it."""

import argparse
from pathlib import Path

from utils.options.parser import positive_float, probability

OWN_FLAGS = {
    "adversarial": (
        "discriminator",
        "lambda_adv",
        "lambda_adv_aux",
        "d_lr",
        "adversarial_loss",
        "discriminator_input",
    ),
    "minent": ("lambda_entropy",),
    "pseudo-labels": ("pseudo_labels",),
    "self-training": (
        "ema",
        "teacher_statistics",
        "teacher_view",
        "teacher_scales",
        "confidence",
        "confidence_per",
        "pseudo_weight",
        "ignore_rows",
        "mixed_jitter",
        "mixed_blur",
    ),
}
"""The flags that one method alone heeds."""


def add_method_arguments(
    parser: argparse.ArgumentParser,
    discriminators: tuple[str, ...],
    losses: tuple[str, ...],
    inputs: tuple[str, ...],
    granularities: tuple[str, ...],
    statistics: tuple[str, ...],
) -> None:
    group = parser.add_argument_group("method")
    group.add_argument(
        "--method",
        choices=tuple(OWN_FLAGS),
        default="adversarial",
        help=(
            "adversarial: the paper's; minent: be sure on the target; pseudo-labels: learn from"
            " labels made beforehand (--pseudo-labels ROOT); self-training: learn from a teacher's"
            " labels of mixed images (docs/adaptation.md)"
        ),
    )
    group.add_argument(
        "--domain-batches",
        choices=("separate", "joint"),
        default="separate",
        help=(
            "adversarial, self-training: each domain in a pass of its own, or both in one,"
            " normalized together"
        ),
    )
    group = parser.add_argument_group("--method adversarial")
    group.add_argument(
        "--discriminator",
        choices=discriminators,
        default="light",
        help="full: 2.78 M parameters (ADA); light: 0.19 M (light ADA)",
    )
    group.add_argument(
        "--lambda-adv",
        type=positive_float,
        default=0.01,
        help="weight of the adversarial loss; larger aligns harder and less stably",
    )
    group.add_argument(
        "--lambda-adv-aux",
        type=positive_float,
        help=(
            "weight of a second adversarial loss, on the auxiliary output of stride 16, with a"
            " discriminator of its own; default: there is none"
        ),
    )
    group.add_argument(
        "--d-lr",
        type=positive_float,
        help="learning rate of the discriminator's Adam, at the start",
    )
    group.add_argument(
        "--adversarial-loss",
        choices=losses,
        default="bce",
        help="the paper's cross-entropy, or least squares (LSGAN)",
    )
    group.add_argument(
        "--discriminator-input",
        choices=inputs,
        default="probabilities",
        help="what the discriminator sees: probabilities, or AdvEnt's entropy maps",
    )
    group = parser.add_argument_group("--method minent")
    group.add_argument(
        "--lambda-entropy", type=positive_float, default=0.01, help="weight of the target's entropy"
    )
    group = parser.add_argument_group("--method pseudo-labels")
    group.add_argument(
        "--pseudo-labels",
        type=Path,
        metavar="ROOT",
        help=(
            "labels of the target images: ROOT/gtFine/SPLIT/CITY/*_gtFine_labelIds.png, of"
            " scripts.make_pseudo_labels or any other tool"
        ),
    )
    group = parser.add_argument_group("--method self-training")
    group.add_argument(
        "--ema",
        type=probability,
        default=0.99,
        metavar="MOMENTUM",
        help="of the teacher's moving average; longer runs want 0.999",
    )
    group.add_argument(
        "--teacher-statistics",
        choices=statistics,
        default="averaged",
        help=(
            "what the teacher's BatchNorm normalizes with: the average of the network's statistics,"
            " or those of the target images alone"
        ),
    )
    group.add_argument(
        "--teacher-view",
        choices=("crop", "whole"),
        default="crop",
        help=(
            "what the teacher looks at to label a crop of the target: the crop, or the whole image"
            " it is from, with all that is around it"
        ),
    )
    group.add_argument(
        "--teacher-scales",
        type=positive_float,
        nargs="+",
        metavar="SCALE",
        default=(1.0,),
        help=(
            "the teacher looks in each of these sizes and takes the mean of its probabilities; 1:"
            " the crop as it is, or the whole image with as many pixels as a crop"
        ),
    )
    group.add_argument(
        "--confidence",
        type=probability,
        default=0.968,
        metavar="P",
        help="the probability from which on the teacher counts as sure",
    )
    group.add_argument(
        "--confidence-per",
        choices=granularities,
        default="image",
        help=(
            "image: the teacher's labels weigh as much as the share of the image that it is sure of"
            " (DACS); pixel: only those it is sure of count; class: so too, but from no more on"
            " than what its labels of the same class have on the average"
        ),
    )
    group.add_argument(
        "--pseudo-weight",
        type=positive_float,
        default=1.0,
        metavar="W",
        help=(
            "what a pixel with the teacher's label weighs; class weights make the source's weigh"
            " more than 1, which wants more here"
        ),
    )
    group.add_argument(
        "--ignore-rows",
        type=probability,
        nargs=2,
        metavar=("TOP", "BOTTOM"),
        default=(0.03, 0.15),
        help=(
            "shares of the target image's height where the teacher's labels are not learned from:"
            " far sky, and the car's own bonnet"
        ),
    )
    group.add_argument(
        "--mixed-jitter",
        type=probability,
        default=0.8,
        metavar="P",
        help="probability that a mixed image changes its colors",
    )
    group.add_argument(
        "--mixed-blur",
        type=probability,
        default=0.5,
        metavar="P",
        help="probability that a mixed image is blurred",
    )


def refuse_flags_without_effect(
    parser: argparse.ArgumentParser, method: str, settings: dict
) -> None:
    """Ends with a message where a flag of another method than ``method`` has a value other than its
    default: it would do nothing.
    """
    for owner, names in OWN_FLAGS.items():
        given = [
            name
            for name in names
            if owner != method and name in settings and settings[name] != parser.get_default(name)
        ]
        if given:
            flags = ", ".join("--" + name.replace("_", "-") for name in given)
            parser.error(
                f"{flags}: of --method {owner}, without effect with --method {method}. Leave it"
                " out, or choose that method"
            )
    if settings["domain_batches"] == "joint" and method not in ("adversarial", "self-training"):
        parser.error(
            f"--domain-batches joint is not available with --method {method}, whose domains pass"
            " separately"
        )
