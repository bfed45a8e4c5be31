"""Step 2 of the paper, supervised: BiSeNet on the target's labels, or on the source's labels alone.

--train-on target is the paper's step 2 (Cityscapes). --train-on source is the source-only baseline
that adaptation is measured against.
"""

import argparse
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from dataset.class_set_file import load_class_set
from dataset.layout import data_images
from dataset.listing import ImageList
from dataset.listing_check import check_listing
from dataset.loader import LoaderOptions
from dataset.source import labelled_images
from dataset.target_flags import TargetFlags
from dataset.training_data import (
    BatchOptions,
    CropOptions,
    DomainBatches,
    StyleOptions,
    ValidationOptions,
    labelled_data,
    validation_data,
)
from model.backbone import weights_origin
from model.bisenet import BiSeNet
from model.build import NetworkOptions, build_network
from model.inference.predictor import Predictor
from model.preprocessing import INPUT_CONVENTIONS
from model.training_step import LossOptions, build_step_context, to_device
from utils.options import checks, groups
from utils.options.parser import (
    Parser,
    from_arguments,
    new_parser,
    non_negative_int,
    positive_int,
    user_errors_without_traceback,
)
from utils.options.recipe import add_recipe_argument, flag_defaults, parse_with_recipe
from utils.training.checkpoint import read_checkpoint
from utils.training.distributed import world_size
from utils.training.loop import TrainingRun
from utils.training.metadata import run_metadata
from utils.training.optim import (
    poly_decay,
    set_learning_rate,
    sgd,
    update,
    warm_up,
    zero_gradients,
)
from utils.training.provenance import inherited
from utils.training.run_parts import MonitorOptions, RunOptions, TrainedNetworks
from utils.training.runtime import start_runtime

EPILOG = """examples:
  step 2 of the paper:
    python train.py --train-on target --cityscapes $CITYSCAPES \\
        --list dataset/splits/cityscapes_train_500.txt
  the source-only baseline, with the steps of train_da.py (opens no file of the target; with --lab
  --cityscapes ROOT it sees the colors of the target, and nothing else):
    python train.py --train-on source --gta5 $GTA5 --list dataset/splits/gta5_train_500.txt \\
        --backbone resnet101 --max-steps 25000 --schedule-steps 250000
"""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argument_parser()
    args = parse_with_recipe(parser, "train", argv)
    if args.validate_every is None:
        args.validate_every = 1000 if args.train_on == "target" else 0
    given = parser.given(argv)
    vars(args).update(checks.replaced_settings(parser, given))
    check_arguments(parser, args)
    refuse_unused(parser, args, given)
    checks.require_style(parser, args.lab, args.lab_class_balanced, given)
    return args


def argument_parser() -> Parser:
    parser = new_parser(__doc__, EPILOG, groups.ESSENTIAL)
    add_recipe_argument(parser)
    add_data_arguments(parser)
    optimization, run_folder = groups.add_training_arguments(parser)
    add_step_arguments(optimization)
    run_folder.add_argument(
        "--validate-every",
        type=non_negative_int,
        metavar="STEPS",
        help="interval of scores on the target's val; 0: never (default; on the target: 1000)",
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
    groups.add_class_arguments(data)
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
        help="target images whose colors --lab and --fda take over; default: all",
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
    checks.require_training_sizes(
        parser, [args.batch_size], args.crop_size, args.accumulate, world_size(), args.bn
    )
    needs_style = bool(args.lab or args.fda)
    root = target_flags(args).scored_root
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
            "--lab and --fda give the source the colors of the target; with --train-on target there"
            " is nothing to transfer"
        )
    checks.require_layouts(parser, args.target, args.target_layout, args.gta5, args.source_layout)
    checks.require_validation(parser, args.val_list, args.validate_every)
    checks.require_snapshots(parser, args.keep_every, args.keep_last)
    if args.target_list and not needs_style:
        parser.error(
            "--target-list names the images whose colors --lab or --fda take over; give one of"
            " these, or leave it out (images to train on: --list)"
        )


def refuse_unused(parser: Parser, args: argparse.Namespace, given: set[str]) -> None:
    """Ends with a message for data that the user gave and that nothing would read."""
    needs_style = bool(args.lab or args.fda)
    if {"target", "cityscapes"} <= given and not (needs_style and args.validate_every):
        parser.error("--target and --cityscapes both name the target; give one of them")
    if args.train_on == "target":
        parser.refuse_unused(given, ["gta5"], "with --train-on target")
    elif not needs_style and not args.validate_every:
        condition = "with --train-on source, without --lab, --fda and --validate-every"
        parser.refuse_unused(given, ["target", "cityscapes"], condition)
    checks.refuse_unused_weights(parser, args.init, args.backbone_weights, given)
    checks.refuse_unused_adjustment(parser, args.logit_adjustment, args.pixel_weights, given)


def target_flags(args: argparse.Namespace) -> TargetFlags:
    """The flags that name the target."""
    return from_arguments(TargetFlags, vars(args))


def read_labelled(args: argparse.Namespace) -> ImageList:
    """The labelled images to train on, the first of which are checked."""
    class_set = None if args.class_set is None else load_class_set(args.class_set)
    if args.train_on == "source":
        images = labelled_images(args.gta5, args.source_layout, class_set, args.list)
    else:
        target = target_flags(args)
        layout = target.scored_layout
        images = data_images(target.scored_root, "train", True, layout, class_set, args.list)
    images = images.without(args.leave_out)
    check_listing(images)
    return images


def build_data(
    args: argparse.Namespace, batch_options: BatchOptions
) -> tuple[DomainBatches, ImageList | None, DataLoader | None]:
    """The batches to train on; target images whose colors they take over; images to score."""
    crop, style = from_arguments(CropOptions, vars(args)), from_arguments(StyleOptions, vars(args))
    padding = INPUT_CONVENTIONS[args.input].padding(args.padding)
    images = read_labelled(args)
    style_target = None
    if style.needs_target:
        style_target = target_flags(args).images("train", args.target_list, args.leave_out)
    dataset = labelled_data(images, style_target, crop, style, padding)
    options = from_arguments(ValidationOptions, vars(args))
    validation = validation_data(options, batch_options, images.class_set, [images])
    return DomainBatches("train", dataset, batch_options, has_labels=True), style_target, validation


def checkpoint_metadata(
    args: argparse.Namespace,
    model: BiSeNet,
    settings: dict,
    initial: dict | None,
    images: tuple[ImageList, ImageList | None, ImageList | None],
) -> dict:
    """Plain values that describe the run in its checkpoints and records.

    ``settings``: what was chosen for flags without a value. ``initial``: the checkpoint of --init.
    ``images``: trained on, whose colors are taken over, to be scored.
    """
    train, style_target, validation = images
    listings = {
        "data_fingerprint": train,
        "target_fingerprint": style_target,
        "val_fingerprint": validation,
    }
    origin = {} if args.resume else initial or weights_origin(args.backbone_weights)
    seen = [*(style_target.identities if style_target else []), *train.identities]
    name = args.name or f"{args.train_on}-{args.backbone}-seed{args.seed}"
    return {
        **run_metadata("train", name, vars(args) | settings, listings),
        "derived": [] if args.schedule_steps else ["schedule_steps"],
        "class_set": train.class_set.as_dict(),
        "architecture": model.architecture,
        "input": INPUT_CONVENTIONS[args.input].as_dict(),
        **inherited(seen, origin, labelled=train.identities if args.train_on == "target" else []),
    }


def planned_steps(args: argparse.Namespace, steps_per_epoch: int) -> tuple[int, int, int]:
    """Steps of the run, of its learning-rate schedule, and between changes of the rate.

    Raises ValueError for a run that is longer than its schedule.
    """
    steps_per_epoch = max(1, steps_per_epoch)
    max_steps = args.max_steps or args.epochs * steps_per_epoch
    poly_per = steps_per_epoch if args.poly_per == "epoch" else 1
    schedule_steps = args.schedule_steps or max_steps
    checks.require_schedule(max_steps, schedule_steps)
    return max_steps, schedule_steps, poly_per


def train(args: argparse.Namespace) -> None:
    runtime = start_runtime(args.device, args.precision, args.seed)
    device, normalize = runtime.device, INPUT_CONVENTIONS[args.input]

    # Data: what is learned from, and perhaps labelled images to score.
    loader = LoaderOptions(args.workers, pin_memory=device.type == "cuda")
    batch_options = BatchOptions(args.batch_size, loader, runtime.shard)
    data, style_target, validation = build_data(args, batch_options)
    images = data.images, style_target, validation and validation.dataset.listing
    # Images of --leave-out count, too: a resumed run that leaves one out keeps its number of steps.
    all_images = len(data) + len(data.images.left_out)
    max_steps, schedule_steps, poly_per = planned_steps(args, all_images // args.batch_size)

    # The network and its optimizer.
    initial = read_checkpoint(args.init) if args.init and not args.resume else None
    network = from_arguments(NetworkOptions, vars(args))
    model = build_network(network, data.class_set.names, device, initial, args.resume)
    if args.compile:
        model.low_resolution = torch.compile(model.low_resolution)
    optimizer = sgd(model, args.lr, args.momentum, args.weight_decay, args.head_lr_mult)
    loss = from_arguments(LossOptions, vars(args))
    context = build_step_context(runtime, loss, data.class_pixels, args.accumulate)

    # What surrounds the steps: run folder, checkpoints, log, pictures, validation, stop signals.
    settings = {"precision": runtime.precision, "schedule_steps": schedule_steps}
    trained = TrainedNetworks(
        model=model,
        optimizers={"optimizer": optimizer},
        state={"model": model, "scaler": runtime.scaler, "optimizer": optimizer},
        batch_counts=context.batch_counts,
    )
    monitor = MonitorOptions(
        predict=Predictor(model, normalize, device, runtime.autocast),
        class_names=data.class_set.names,
        colors=data.class_set.color_table,
        validation=validation,
    )
    run = TrainingRun(
        from_arguments(RunOptions, vars(args) | flag_defaults(argument_parser(), "train")),
        processes=runtime.processes,
        trained=trained,
        metadata=checkpoint_metadata(args, model, settings, initial, images),
        to_device=partial(to_device, normalize=normalize, device=device),
        monitor=monitor,
    )
    with run:
        for step, sample in run.steps(max_steps, data):
            factor = poly_decay(step, schedule_steps, per=poly_per) * warm_up(step, args.warmup)
            set_learning_rate([optimizer], factor)
            zero_gradients([optimizer])

            # The gradient, in micro-batches that add up to the whole batch.
            for (batch,) in run.micro_batches(sample):
                loss, _ = context.add_supervised_gradients(model, batch)
                run.record(step, {"loss/segmentation": loss})
            run.sum_gradients()

            update([optimizer], runtime.scaler)
            run.after_step(step + 1)  # log, pictures, validate, save, keep, stop
        run.finish(target_flags(args).scored_root, target_flags(args).scored_layout_name)


if __name__ == "__main__":
    with user_errors_without_traceback():
        train(parse_arguments())
