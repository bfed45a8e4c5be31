"""Step 2 of the paper, supervised: BiSeNet on the target's labels, or on the source's labels alone.

--train-on target is the paper's step 2 (Cityscapes). --train-on source is the source-only baseline
that adaptation is measured against.
"""

import argparse
from functools import partial
from pathlib import Path

import torch

from dataset.cityscapes import cityscapes
from dataset.labels import CLASS_NAMES, COLORS, NUM_CLASSES
from dataset.listing import ImageList, check_listing, select_by_list
from dataset.loader import Loading, evaluation_loader
from dataset.source import labelled_images
from dataset.training_data import (
    BatchOptions,
    CropOptions,
    DomainBatches,
    StyleOptions,
    cityscapes_root,
    labelled_data,
    read_target,
    supervised_names,
    validation_images,
    without,
)
from model.bisenet import BiSeNet
from model.build import NetworkOptions, build_network
from model.inference.predictor import Predictor
from model.losses.segmentation import build_pixel_weights, counts_of_batch
from model.preprocessing import INPUT_CONVENTIONS
from model.training_step import StepContext, to_device
from utils.options import groups
from utils.options.parser import (
    Parser,
    from_arguments,
    new_parser,
    non_negative_int,
    positive_int,
    user_errors_without_traceback,
)
from utils.options.recipe import add_recipe_argument, flag_defaults, parse_with_recipe
from utils.training.checkpoint import inherited, plain, read_checkpoint
from utils.training.compute import Compute, set_up
from utils.training.distributed import world_size
from utils.training.loop import RunOptions, Trained, TrainingRun, Watching
from utils.training.optim import (
    poly_decay,
    set_learning_rate,
    sgd,
    update,
    warm_up,
    zero_gradients,
)

EPILOG = """examples:
  step 2 of the paper:
    python train.py --train-on target --cityscapes $CITYSCAPES
      --list dataset/splits/cityscapes_train_500.txt
  the source-only baseline (opens no file of the target; with --lab --cityscapes ROOT it sees the
  colors of the target, and nothing else):
    python train.py --train-on source --gta5 $GTA5 --list dataset/splits/gta5_train_500.txt
      --backbone resnet101 --max-steps 25000
"""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argument_parser()
    args = parse_with_recipe(parser, "train", argv)
    if args.validate_every is None:
        args.validate_every = 1000 if args.train_on == "target" else 0
    check_arguments(parser, args)
    groups.require_style(parser, args.lab, args.lab_class_balanced, parser.given(argv))
    return args


def argument_parser() -> Parser:
    parser = new_parser(__doc__, EPILOG, groups.ESSENTIAL)
    add_recipe_argument(parser)
    add_data_arguments(parser)
    groups.add_style_arguments(parser)
    groups.add_network_arguments(parser)
    groups.add_augmentation_arguments(parser)
    add_step_arguments(groups.add_optimization_arguments(parser))
    groups.add_device_arguments(parser)
    groups.add_workers_argument(parser)
    groups.add_run_arguments(parser).add_argument(
        "--validate-every",
        type=non_negative_int,
        metavar="STEPS",
        help="interval of scores on Cityscapes val; 0: never. Default: 1000 on the target, else 0",
    )
    return parser


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    data.add_argument(
        "--train-on",
        type=lambda word: {"gta5": "source", "cityscapes": "target"}.get(word, word),
        choices=("source", "target"),
        required=True,
        help="the labelled data set to learn from (gta5 and cityscapes are accepted, too)",
    )
    groups.add_source_argument(data)
    groups.add_target_arguments(data)
    data.add_argument(
        "--list",
        type=Path,
        metavar="FILE",
        help="images to train on, one name per line; default: all that are found",
    )
    data.add_argument(
        "--target-list",
        type=Path,
        metavar="FILE",
        help="target images whose looks --lab and --fda take; default: all",
    )
    data.add_argument(
        "--val-list",
        type=Path,
        metavar="FILE",
        help="scored images (val), one name per line; default: all that are found",
    )


def add_step_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--epochs", type=positive_int, help="passes over the training images; --max-steps wins"
    )
    group.add_argument("--max-steps", type=positive_int, help="number of training steps")
    group.add_argument(
        "--schedule-steps",
        type=positive_int,
        help="step at which the learning rate would reach 0; default: the last step",
    )
    group.add_argument(
        "--poly-per",
        choices=("iteration", "epoch"),
        help="how often the learning rate decays",
    )


def check_arguments(parser, args: argparse.Namespace) -> None:
    """Ends with a message for flags that cannot work together."""
    groups.require_training_sizes(
        parser, [args.batch_size], args.crop_size, args.accumulate, world_size(), args.bn
    )
    needs_style = bool(args.lab or args.fda)
    root = cityscapes_root(args.cityscapes, args.target)
    if args.train_on == "source" and args.gta5 is None:
        parser.error("--train-on source needs --gta5 ROOT (or --source ROOT)")
    if args.train_on == "target" and root is None:
        parser.error("--train-on target needs --cityscapes ROOT with labels (or --target ROOT)")
    if args.validate_every and root is None:
        parser.error("--validate-every needs --cityscapes ROOT (or --target ROOT)")
    if needs_style and root is None and not args.target:
        parser.error("--lab and --fda need --cityscapes ROOT (or --target ROOT|PATTERN)")
    if needs_style and args.train_on == "target":
        parser.error(
            "--lab and --fda give the source the looks of the target; with --train-on target there"
            " is nothing to transfer"
        )
    groups.require_validation(parser, args.val_list, args.validate_every)
    groups.require_snapshots(parser, args.keep_every, args.keep_last)
    if args.target_list and not needs_style:
        parser.error(
            "--target-list names the images whose looks --lab or --fda take; give one of these, or"
            " leave it out"
        )


def read_labelled(args: argparse.Namespace) -> ImageList:
    """The labelled images to train on, the first of which are checked."""
    if args.train_on == "source":
        images = labelled_images(args.gta5)
    else:
        images = cityscapes(cityscapes_root(args.cityscapes, args.target), "train")
    images = without(select_by_list(images, args.list), args.leave_out)
    check_listing(images)
    return images


def build_data(
    args: argparse.Namespace, loading: Loading, shard: tuple[int, int]
) -> tuple[DomainBatches, ImageList | None]:
    """The batches to train on, and the target images whose looks they take, if any."""
    crop, style = from_arguments(CropOptions, vars(args)), from_arguments(StyleOptions, vars(args))
    padding = INPUT_CONVENTIONS[args.input].padding(args.padding)
    images = read_labelled(args)
    style_target = None
    if style.needs_target:
        style_target = read_target(
            args.cityscapes, args.target, "train", args.target_list, args.leave_out
        )
    dataset = labelled_data(images, style_target, crop, style, padding)
    batches = BatchOptions(args.batch_size, loading, shard)
    return DomainBatches("train", dataset, batches, has_labels=True), style_target


def build_validation(args: argparse.Namespace, loading: Loading, shard: tuple[int, int]):
    """The labelled images that --validate-every scores; None without it."""
    if not args.validate_every:
        return None
    images = validation_images(args.cityscapes, args.target, args.val_list, args.leave_out)
    return evaluation_loader(images, loading, shard)


def describe(
    args: argparse.Namespace,
    model: BiSeNet,
    settings: dict,
    listings: dict[str, ImageList | None],
    initial: dict | None,
) -> dict:
    """What checkpoints and records say about the run: plain values.

    ``listings``: the images, by the names of the settings that identify them.
    """
    group_sizes = groups.batch_norm_group_sizes(
        [args.batch_size], args.accumulate, world_size(), args.bn
    )
    found = {name: images for name, images in listings.items() if images is not None}
    settings = vars(args) | settings
    settings |= {name: images.fingerprint() for name, images in found.items()}
    train, style_target = listings["data_fingerprint"], listings["target_fingerprint"]
    seen = style_target.names if style_target else []
    seen += train.names if args.train_on == "target" else supervised_names(args.gta5, train)
    return {
        "script": "train",
        "name": args.name or f"{args.train_on}-{args.backbone}-seed{args.seed}",
        "architecture": model.architecture,
        "input": INPUT_CONVENTIONS[args.input].as_dict(),
        "settings": plain(settings | {"batch_norm_group_sizes": group_sizes}),
        "data_names": {name: images.names for name, images in found.items()},
        **inherited(initial or {}, seen),
    }


def build_context(args: argparse.Namespace, data: DomainBatches, compute: Compute) -> StepContext:
    """Precision, gradient scaling and pixel weights of all steps."""
    pixels = torch.from_numpy(data.class_pixels()) if args.pixel_weights == "class" else None
    pixel_weights = build_pixel_weights(
        args.pixel_weights, pixels, compute.device, compute.processes.all_gather
    )
    return StepContext(compute.autocast, compute.scaler, pixel_weights=pixel_weights)


def scoring_command(args: argparse.Namespace, checkpoint: Path) -> tuple:
    """The words of the command that scores the run."""
    root = cityscapes_root(args.cityscapes, args.target) or "ROOT"
    return "python", "eval.py", checkpoint, "--cityscapes", root


def train(args: argparse.Namespace) -> None:
    compute = set_up(args.device, args.precision)
    device, shard = compute.device, compute.shard
    normalize = INPUT_CONVENTIONS[args.input]
    torch.manual_seed(args.seed)

    # Data: what is learned from, and perhaps labelled images to score.
    loading = Loading(args.workers, pin_memory=device.type == "cuda")
    data, style_target = build_data(args, loading, shard)
    validation = build_validation(args, loading, shard)
    steps_per_epoch = max(1, len(data) // args.batch_size)
    max_steps = args.max_steps or args.epochs * steps_per_epoch
    schedule_steps = args.schedule_steps or max_steps
    poly_per = steps_per_epoch if args.poly_per == "epoch" else 1

    initial = read_checkpoint(args.init) if args.init and not args.resume else None
    network = from_arguments(NetworkOptions, vars(args))
    model = build_network(network, NUM_CLASSES, device, initial, args.resume)
    if args.compile:
        model.low_resolution = torch.compile(model.low_resolution)
    optimizer = sgd(model, args.lr, args.momentum, args.weight_decay, args.head_lr_mult)
    state = {"model": model, "scaler": compute.scaler, "optimizer": optimizer}
    context = build_context(args, data, compute)

    counts = counts_of_batch(context.pixel_weights)
    settings = {"precision": compute.precision, "schedule_steps": schedule_steps}
    listings = {
        "data_fingerprint": data.images,
        "target_fingerprint": style_target,
        "val_fingerprint": validation and validation.dataset.listing,
    }
    run = TrainingRun(
        from_arguments(RunOptions, vars(args) | flag_defaults(argument_parser(), "train")),
        compute.processes,
        Trained(model, {}, {"optimizer": optimizer}, state, model, counts),
        describe(args, model, settings, listings, initial),
        partial(to_device, normalize=normalize, device=device),
        Watching(
            Predictor(model, normalize, device, compute.autocast),
            CLASS_NAMES,
            COLORS,
            validation=validation,
            validate_every=args.validate_every,
        ),
    )
    with run:
        for step, sample in run.steps(max_steps, data):
            factor = poly_decay(step, schedule_steps, per=poly_per) * warm_up(step, args.warmup)
            set_learning_rate([optimizer], factor)
            zero_gradients([optimizer])

            # The gradient, in micro-batches that add up to the whole batch.
            for (part,) in run.micro_batches(sample):
                loss, _ = context.supervised_step(model, part.image, part.label, part.valid_pixels)
                run.record(step, {"loss/segmentation": loss})
            run.sum_gradients()

            update([optimizer], compute.scaler)
            run.after_step(step + 1)  # log, pictures, validate, save, keep, stop
        run.finish(*scoring_command(args, run.folder.last))


if __name__ == "__main__":
    with user_errors_without_traceback():
        train(parse_arguments())
