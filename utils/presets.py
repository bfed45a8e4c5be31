"""The comparisons that scripts.reproduce trains and scores: which rows, with which commands."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One row: a training command, as words before the common ones. A row that is not ``scored`` is
    a start for others; one that is for ``one_seed`` is trained with the first of the seeds
    alone.
    """

    name: str
    command: str
    scored: bool = True
    one_seed: bool = False


@dataclass(frozen=True)
class Preset:
    """The rows of a comparison, what their commands share, and the lists of images they are trained
    and scored on.
    """

    common: str
    rows: tuple[Row, ...]
    evaluation: str = ""
    published: bool = False


_SOURCE = "train.py --train-on gta5 --gta5 {gta5}"
_TARGET = "train.py --train-on cityscapes --cityscapes {cityscapes}"
_ADAPT = "train_da.py --gta5 {gta5} --cityscapes {cityscapes}"
_LISTS = (
    "--source-list dataset/splits/gta5_train_500.txt --target-list"
    " dataset/splits/cityscapes_train_500.txt"
)
_PAPER_TARGET = f"{_TARGET} --list dataset/splits/cityscapes_train_500.txt"
_FROM_START = "--init {output}/start/last.pt --max-steps {steps} --schedule-steps {steps}"
_SMALL = "--backbone resnet18 --backbone-weights none --lr 2e-2 --batch-size 4"
_SCRATCH = (
    "--max-steps {steps} --schedule-steps {steps} --validate-every 100 --cityscapes {cityscapes}"
)

# Two cities of the target's training split are kept apart: the parts of the strong recipe were
# chosen on them (docs/results.md).
_BEYOND = f"{_ADAPT} --target-list dataset/splits/cityscapes_train_adapt.txt"
_BEYOND_SOURCE = f"{_SOURCE} --cityscapes {{cityscapes}}"
_BEYOND_LOOKS = "--target-list dataset/splits/cityscapes_train_adapt.txt"
_AUGMENTED = "--jitter 0.8 --blur 0.5"
_STRONG_SOURCE = (  # for train.py
    "--lab --lab-by-class --rare-classes --max-class-share 0.75 --pixel-weights class"
    " --fusion-channels 128"
)


def _beyond(ema: str) -> tuple[Row, ...]:
    """The methods beside each other, every teacher with the momentum ``ema``: a longer run wants a
    slower one.
    """
    strong = f"{_BEYOND} --recipe strong --ema {ema}"
    return (
        Row("source-only", f"{_BEYOND_SOURCE} {_AUGMENTED}"),
        Row("light LAB-ADA", f"{_BEYOND} --discriminator light --lab"),
        Row("self-training", f"{_BEYOND} --method self-training --ema {ema} {_AUGMENTED}"),
        Row("strong", strong),
        Row(
            "oracle",
            f"{_TARGET} --list dataset/splits/cityscapes_train_adapt.txt --validate-every 0"
            f" {_AUGMENTED}",
        ),
        Row(
            "source-only + LAB",
            f"{_BEYOND_SOURCE} {_BEYOND_LOOKS} --lab {_AUGMENTED}",
            one_seed=True,
        ),
        Row(
            "source-only + FDA",
            f"{_BEYOND_SOURCE} {_BEYOND_LOOKS} --fda {_AUGMENTED}",
            one_seed=True,
        ),
        Row("light ADA", f"{_BEYOND} --discriminator light", one_seed=True),
        Row(
            "light ADA joint",
            f"{_BEYOND} --discriminator light --domain-batches joint",
            one_seed=True,
        ),
        Row(
            "AdvEnt", f"{_BEYOND} --discriminator full --discriminator-input entropy", one_seed=True
        ),
        Row(
            "light ADA least squares",
            f"{_BEYOND} --discriminator light --adversarial-loss least-squares",
            one_seed=True,
        ),
        Row(
            "light ADA two levels",
            f"{_BEYOND} --discriminator light --lambda-adv-aux 0.002",
            one_seed=True,
        ),
        Row("MinEnt", f"{_BEYOND} --method minent", one_seed=True),
        # The ablation of strong: each of its parts removed once.
        Row(
            "strong without self-training",
            f"{_BEYOND_SOURCE} {_BEYOND_LOOKS} {_AUGMENTED} {_STRONG_SOURCE}",
            one_seed=True,
        ),
        Row("strong without LAB", f"{strong} --lab 0 --no-lab-by-class", one_seed=True),
        Row("strong without LAB by class", f"{strong} --no-lab-by-class", one_seed=True),
        Row("strong without jitter and blur", f"{strong} --jitter 0 --blur 0", one_seed=True),
        Row("strong without rare classes", f"{strong} --no-rare-classes", one_seed=True),
        Row("strong without varied crops", f"{strong} --max-class-share 1", one_seed=True),
        Row("strong without class weights", f"{strong} --pixel-weights equal", one_seed=True),
        Row(
            "strong without thresholds by class", f"{strong} --confidence-per image", one_seed=True
        ),
        Row(
            "strong without whole images for the teacher",
            f"{strong} --teacher-view crop",
            one_seed=True,
        ),
        Row(
            "strong without the scale of the target",
            f"{strong} --target-scales 0.5 0.75 1 1.5",
            one_seed=True,
        ),
        Row(
            "strong without a larger weight of the teacher",
            f"{strong} --pseudo-weight 1",
            one_seed=True,
        ),
        Row("strong without wide fusion", f"{strong} --fusion-channels 19", one_seed=True),
    )


PRESETS = {
    "paper": Preset(
        "",
        (
            Row("BiSeNet-18", f"{_PAPER_TARGET} --backbone resnet18"),
            Row("BiSeNet-101", f"{_PAPER_TARGET} --backbone resnet101"),
            Row(
                "source-only",
                f"{_SOURCE} --list dataset/splits/gta5_train_500.txt --backbone resnet101"
                " --max-steps 25000 --schedule-steps 250000",
            ),
            Row("ADA", f"{_ADAPT} {_LISTS} --discriminator full"),
            Row("light ADA", f"{_ADAPT} {_LISTS} --discriminator light"),
            Row("light LAB-ADA", f"{_ADAPT} {_LISTS} --discriminator light --lab"),
        ),
        "--list dataset/splits/cityscapes_val_250.txt",
        published=True,
    ),
    "small": Preset(
        f"{_SMALL} --crop-size 128 256",
        (
            Row("source-only", f"{_SOURCE} {_SCRATCH}"),
            Row("source-only + LAB", f"{_SOURCE} --lab {_SCRATCH}"),
            Row("ADA", f"{_ADAPT} --discriminator full {_SCRATCH}"),
            Row("light ADA", f"{_ADAPT} --discriminator light {_SCRATCH}"),
            Row("light LAB-ADA", f"{_ADAPT} --discriminator light --lab {_SCRATCH}"),
            Row("oracle", f"{_TARGET} {_SCRATCH}"),
        ),
    ),
    "demo": Preset(
        f"{_SMALL} --crop-size 96 192 --scales 0.75 1.0 1.5 --save-every 100 --log-every 50",
        (
            Row(
                "start", f"{_SOURCE} --max-steps {{steps}} --schedule-steps {{twice}}", scored=False
            ),
            Row("source-only", f"{_SOURCE} {_FROM_START}"),
            Row("ADA", f"{_ADAPT} --discriminator full {_FROM_START}"),
            Row("light ADA", f"{_ADAPT} --discriminator light {_FROM_START}"),
            Row("light LAB-ADA", f"{_ADAPT} --discriminator light --lab {_FROM_START}"),
            Row("oracle", f"{_TARGET} --max-steps {{twice}} --validate-every 0"),
        ),
    ),
    "beyond": Preset(
        f"{_SMALL} --crop-size 128 256 --max-steps {{steps}} --schedule-steps {{steps}}",
        _beyond(ema="0.99"),
    ),
    "beyond-gpu": Preset(
        "--backbone resnet18 --lr 2e-2 --new-layer-rate 2 --warmup 500 --max-steps {steps}"
        " --schedule-steps {steps} --save-every 2000",
        tuple(row for row in _beyond(ema="0.999") if not row.one_seed),
    ),
}
DEFAULT_STEPS = {
    "paper": 25_000,
    "small": 1_000,
    "demo": 100,
    "beyond": 1_500,
    "beyond-gpu": 40_000,
}
