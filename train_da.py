"""Steps 3 and 4 of the paper: BiSeNet learns from a labelled source and adapts to a target.

By default (--method adversarial) a discriminator learns to tell source segmentations from target
ones, and the network learns to fool it on the target (Eqs. 3-5). With --lab every source image
first gets the colors of a random target image (Eq. 6). No label of the target is opened, unless
--validate-every asks for scores along the way, which change nothing in the training.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from dataset.class_set import ClassSet
from dataset.class_set_file import load_class_set
from dataset.label_format import prediction_format
from dataset.labels import IGNORE_INDEX
from dataset.listing import ImageList
from dataset.listing_check import check_listing
from dataset.loader import LoaderOptions
from dataset.pseudo_labels import with_labels
from dataset.source import labelled_images
from dataset.style.photometric import RANDOM_CHANGES
from dataset.target_flags import TargetFlags
from dataset.training_data import (
    BatchOptions,
    CropOptions,
    DomainBatches,
    StyleOptions,
    TargetOptions,
    ValidationOptions,
    label_hashes,
    label_provenance,
    labelled_data,
    target_data,
    validation_data,
)
from model.backbone import weights_origin
from model.bisenet import BiSeNet
from model.build import NetworkOptions, build_network
from model.inference.predictor import Predictor
from model.preprocessing import INPUT_CONVENTIONS
from model.training_step import LossOptions, build_step_context, to_device
from model.uda.base import Method, MethodOptions, MethodSetting, RunSettings, find_methods
from model.uda.collapse_monitor import CollapseMonitor
from utils.evaluation.comparability import adaptation_warnings
from utils.options import checks, groups
from utils.options.parser import (
    Parser,
    add_method_arguments,
    from_arguments,
    image_scale,
    method_options,
    new_parser,
    non_negative_int,
    other_method_settings,
    positive_int,
    user_errors_without_traceback,
)
from utils.options.recipe import (
    add_recipe_argument,
    flag_defaults,
    given_settings,
    parse_with_recipe,
)
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
from utils.training.runtime import Runtime, start_runtime

EPILOG = """examples:
  ADA (step 3):
    python train_da.py --discriminator full --gta5 $GTA5 --cityscapes $CITYSCAPES
  light ADA (step 3):
    python train_da.py --discriminator light --gta5 $GTA5 --cityscapes $CITYSCAPES
  light LAB-ADA (step 4):
    python train_da.py --discriminator light --lab --gta5 $GTA5 --cityscapes $CITYSCAPES
  with the paper's 500 + 500 images add
    --source-list dataset/splits/gta5_train_500.txt
    --target-list dataset/splits/cityscapes_train_500.txt
"""

METHODS = find_methods()
SOURCE_FLAGS = {
    "source_list": None,
    "lab": 0.0,
    "lab_class_balanced": False,
    "fda": 0.0,
    "jitter": 0.0,
    "blur": 0.0,
    "rare_class_sampling": False,
    "cat_max_ratio": 1.0,
    "pixel_weights": "none",
    "logit_adjustment": 0.0,
}
"""Flags that concern the labelled source alone, with the values that do nothing."""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argument_parser()
    args = parse_with_recipe(parser, "train_da", argv)
    args.target_batch_size = args.target_batch_size or args.batch_size
    given = parser.given(argv)
    vars(args).update(checks.replaced_settings(parser, given))
    check_arguments(parser, args, given)
    refuse_unused(parser, args, given)
    checks.require_style(parser, args.lab, args.lab_class_balanced, given)
    return args


def argument_parser() -> Parser:
    parser = new_parser(__doc__, EPILOG, groups.ESSENTIAL)
    add_recipe_argument(parser)
    add_data_arguments(parser)
    add_method_arguments(parser, METHODS)
    optimization, run_folder = groups.add_training_arguments(parser)
    add_step_arguments(optimization)
    add_monitor_arguments(run_folder)
    return parser


def add_monitor_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--validate-every",
        type=non_negative_int,
        default=0,
        metavar="STEPS",
        help="interval of scores on the target's val (reads its labels, for scores only); 0: never",
    )
    group.add_argument(
        "--stop-on-collapse",
        action="store_true",
        help="save and stop when a class loses two thirds of its share of the target predictions",
    )
    group.add_argument(
        "--collapse-window",
        type=positive_int,
        default=100,
        metavar="STEPS",
        help="steps over which class shares are averaged to notice a collapse",
    )


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    groups.add_source_argument(data, required=True)
    groups.add_target_arguments(data)
    groups.add_class_arguments(data)
    for name, what in (("source", "source"), ("target", "target"), ("val", "scored (val)")):
        data.add_argument(
            f"--{name}-list",
            type=Path,
            metavar="FILE",
            help=f"{what} images to use, one name per line; default: all that are found",
        )
    data.add_argument(
        "--target-split",
        choices=("train", "val"),
        help="split of the target; val adapts on the very images that are scored (transductive)",
    )
    data.add_argument(
        "--target-view",
        choices=("crops", "whole"),
        help="target images as augmented crops, or whole, unaugmented, in order (authors' code)",
    )
    data.add_argument(
        "--target-scales",
        type=image_scale,
        nargs="+",
        metavar="SCALE",
        help="scale factors of target images, in place of --scales",
    )


def add_step_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--target-batch-size",
        type=positive_int,
        help="target images per step; default: as --batch-size",
    )
    group.add_argument("--max-steps", type=positive_int, help="number of training steps")
    group.add_argument(
        "--schedule-steps",
        type=positive_int,
        help="step at which all learning rates would reach 0",
    )


def check_arguments(parser, args: argparse.Namespace, given: set[str]) -> None:
    """Ends with a message for flags that cannot work together."""
    if args.target and args.cityscapes:
        if not args.validate_every:
            parser.error("--target and --cityscapes both name the target; give one of them")
    elif not args.target and not args.cityscapes:
        parser.error("a target is needed: --cityscapes ROOT, or --target ROOT|PATTERN")
    if args.validate_every and target_flags(args).scored_root is None:
        parser.error(
            "--validate-every needs a root with labels: --cityscapes ROOT, or --target ROOT of a"
            " known data set (--target-layout)"
        )
    if args.target_view == "whole" and args.target_scales:
        parser.error(
            "--target-scales: without effect with --target-view whole, which resizes nothing. Leave"
            " one, or the recipe that sets it, out"
        )
    checks.require_layouts(parser, args.target, args.target_layout, args.gta5, args.source_layout)
    checks.require_validation(parser, args.val_list, args.validate_every)
    checks.require_snapshots(parser, args.keep_every, args.keep_last)
    if "method" not in given:  # one of the command line need not fit the options of a recipe
        given = given | given_settings(parser, "train_da", args.recipe)
    options = method_options(parser, METHODS, vars(args), given)
    if args.target_view == "whole" and options.target_needs().ignored_rows is not None:
        parser.error(
            f"--target-view whole: --method {args.method} learns from augmented crops of the"
            " target. Use --target-view crops"
        )
    batch_sizes = [args.batch_size, args.target_batch_size]
    checks.require_training_sizes(
        parser, batch_sizes, args.crop_size, args.accumulate, world_size(), args.bn
    )
    try:
        checks.require_schedule(args.max_steps, args.schedule_steps)
        options.check(from_arguments(RunSettings, vars(args)))
    except ValueError as error:
        parser.error(str(error))


def refuse_unused(parser: Parser, args: argparse.Namespace, given: set[str]) -> None:
    """Ends with a message for flags that the user gave and that nothing would read."""
    if target_flags(args).images_root is None and args.method != "pseudo-labels":
        parser.refuse_unused(given, ["target_split"], "with --target images, which have no splits")
    checks.refuse_unused_weights(parser, args.init, args.backbone_weights, given)
    checks.refuse_unused_adjustment(parser, args.logit_adjustment, args.pixel_weights, given)


def target_flags(args: argparse.Namespace) -> TargetFlags:
    """The flags that name the target."""
    return from_arguments(TargetFlags, vars(args))


def chosen_options(args: argparse.Namespace) -> MethodOptions:
    """The options of the method of --method."""
    return from_arguments(METHODS[args.method].Options, vars(args))


def unused_settings(args: argparse.Namespace) -> dict[str, Any]:
    """{name: value that does nothing} of the settings given, if the source is not learned from.

    The commands of a comparison may share them, so they are named and not refused.
    """
    if chosen_options(args).learns_source:
        return {}
    return {name: off for name, off in SOURCE_FLAGS.items() if getattr(args, name) != off}


def build_data(
    args: argparse.Namespace, batch_options: BatchOptions
) -> tuple[DomainBatches, DomainBatches, DataLoader | None]:
    """A labelled source, perhaps in the target's colors; a target without labels; scored images."""
    needs, values = chosen_options(args).target_needs(), vars(args) | unused_settings(args)
    crop, style = from_arguments(CropOptions, values), from_arguments(StyleOptions, values)
    padding = INPUT_CONVENTIONS[args.input].padding(args.padding)
    class_set = None if args.class_set is None else load_class_set(args.class_set)
    source_images = labelled_images(args.gta5, args.source_layout, class_set, args.source_list)
    source_images = source_images.without(args.leave_out)
    class_set = source_images.class_set
    target_images = target_flags(args).images(args.target_split, args.target_list, args.leave_out)
    if needs.label_root is not None:
        target_images = with_labels(
            target_images, needs.label_root, args.target_split, prediction_format(class_set)
        )
    check_listing(source_images)
    source = labelled_data(source_images, target_images, crop, style, padding)
    target_options = TargetOptions(
        target_view=args.target_view,
        target_scales=args.target_scales and tuple(args.target_scales),
        ignored_rows=needs.ignored_rows,
        context_scale=needs.context_scale,
        smallest_scale=needs.smallest_scale,
    )
    target = target_data(target_images, crop, target_options, padding)
    target_batches = batch_options._replace(batch_size=args.target_batch_size)
    scored = from_arguments(ValidationOptions, vars(args))
    trained = [source_images, target_images]
    return (
        DomainBatches("source", source, batch_options, has_labels=True),
        DomainBatches("target", target, target_batches, has_labels=target_images.has_labels),
        validation_data(scored, batch_options, class_set, trained),
    )


def build_collapse_monitor(
    args: argparse.Namespace, class_names: Sequence[str], runtime: Runtime
) -> CollapseMonitor:
    """Monitors class shares on the target.

    They are compared with those at the end of --warmup, or after a tenth of the run if it is later.
    """
    return CollapseMonitor(
        class_names,
        max(args.warmup, args.max_steps // 10),
        args.collapse_window,
        runtime.device,
        runtime.processes.all_reduce_sum,
    )


def build_method(
    args: argparse.Namespace, model: BiSeNet, source: DomainBatches, runtime: Runtime
) -> Method:
    """The method of --method, with the networks and optimizers that belong to it."""
    setting = MethodSetting(
        context=build_step_context(
            runtime,
            from_arguments(LossOptions, vars(args) | unused_settings(args)),
            source.class_pixels,
            args.accumulate,
        ),
        num_classes=model.architecture["num_classes"],
        normalize=INPUT_CONVENTIONS[args.input],
        all_reduce_sum=runtime.processes.all_reduce_sum,
        ignore_index=IGNORE_INDEX,
        random_changes=RANDOM_CHANGES,
        collapse_monitor=build_collapse_monitor(args, source.class_set.names, runtime),
        read_checkpoint=read_checkpoint,
        class_names=source.class_set.names,
    )
    method = METHODS[args.method]
    return method(model, chosen_options(args), setting)


def checkpoint_metadata(
    args: argparse.Namespace,
    method: Method,
    precision: str,
    initial: dict | None,
    images: tuple[ImageList, ImageList, ImageList | None],
) -> dict:
    """Plain values that describe the run in its checkpoints and records.

    ``initial``: the checkpoint of --init. ``images``: of the source, of the target, to be scored.
    """
    source, target, validation = images
    listings = {
        "source_fingerprint": source,
        "target_fingerprint": target,
        "val_fingerprint": validation,
    }
    name = f"{method.short_name}{'-lab' if args.lab else ''}-{args.backbone}-seed{args.seed}"
    unused = other_method_settings(METHODS, args.method)
    settings = {key: value for key, value in vars(args).items() if key not in unused}
    settings |= {"precision": precision}
    if method.origins:  # compared on resume by what they are, wherever their files lie
        settings |= {"teacher_names": [origin["name"] for origin in method.origins]}
    return {
        **run_metadata("train_da", args.name or name, settings, listings),
        "derived": ["target_batch_size"] if args.target_batch_size == args.batch_size else [],
        "class_set": source.class_set.as_dict(),
        "architecture": method.model.architecture,
        "input": INPUT_CONVENTIONS[args.input].as_dict(),
        "inference_network": method.inference_part,
        **provenance(args, method, initial, source, target),
        **method.metadata(),
    }


def provenance(
    args: argparse.Namespace,
    method: Method,
    initial: dict | None,
    source: ImageList,
    target: ImageList,
) -> dict:
    """The images that the network has seen, itself or through what it begins and learns from."""
    origin = {} if args.resume else initial or weights_origin(args.backbone_weights)
    learned = source.identities if method.options.learns_source else []
    adapted = set(target.identities)
    both = [name for name in learned if name in adapted and source.data_set]
    found = inherited([*target.identities, *learned], origin, *method.origins, labelled=both)
    label_root = method.options.target_needs().label_root
    if label_root is None:
        return found
    made_by = label_provenance(label_root, args.target_split, target)
    return inherited([], found, made_by) | {"label_hashes": label_hashes(target)}


def start_warnings(
    args: argparse.Namespace,
    target: ImageList,
    scored: ImageList | None,
    metadata: dict,
) -> list[str]:
    """Warnings: scores that cannot be compared, adaptation that is not unsupervised, unused flags.

    ``metadata``: of the run, with that of its earlier starts.
    """
    flags = target_flags(args)
    warnings = adaptation_warnings(
        metadata,
        target.identities,
        scored.identities if scored else (),
        is_transductive=args.target_split == "val" and flags.scores_its_images,
    )
    if unused := unused_settings(args):
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
        warnings.append(f"NOTE: {flags}: without effect, because the source is not learned from.")
    return warnings


def monitor_options(
    args: argparse.Namespace,
    method: Method,
    predict: Predictor,
    class_set: ClassSet,
    validation: DataLoader | None,
    target: ImageList,
) -> MonitorOptions:
    """How the progress of the run is shown, and what ends it early."""
    scored = None if validation is None else validation.dataset.listing
    return MonitorOptions(
        predict=predict,
        class_names=class_set.names,
        colors=class_set.color_table,
        warnings=method.warnings,
        validation=validation,
        start_warnings=partial(start_warnings, args, target, scored),
        collapse_monitor=method.collapse_monitor,
        stop_on_collapse=args.stop_on_collapse,
        monitors=method.monitors,
    )


def adapt(args: argparse.Namespace) -> None:
    runtime = start_runtime(args.device, args.precision, args.seed)
    device, normalize = runtime.device, INPUT_CONVENTIONS[args.input]

    # Data: a labelled source, a target without labels, perhaps labelled images to score.
    loader = LoaderOptions(args.workers, pin_memory=device.type == "cuda")
    batch_options = BatchOptions(args.batch_size, loader, runtime.shard)
    source_data, target_data, validation = build_data(args, batch_options)
    images = source_data.images, target_data.images, validation and validation.dataset.listing

    # The network, and the method with the networks and optimizers that belong to it.
    initial = read_checkpoint(args.init) if args.init and not args.resume else None
    network = from_arguments(NetworkOptions, vars(args))
    model = build_network(network, source_data.class_set.names, device, initial, args.resume)
    method = build_method(args, model, source_data, runtime)
    if args.compile:  # after the method, which may have copied the model
        model.low_resolution = torch.compile(model.low_resolution)
    optimizer = sgd(model, args.lr, args.momentum, args.weight_decay, args.head_lr_mult)
    optimizers = {"optimizer": optimizer, **method.optimizers}
    state = {"model": model, "scaler": runtime.scaler, "optimizer": optimizer, **method.state()}

    # What surrounds the steps: run folder, checkpoints, log, pictures, validation, stop signals.
    trained = TrainedNetworks(
        model=model,
        networks=method.networks,
        optimizers=optimizers,
        state=state,
        batch_counts=method.context.batch_counts,
    )
    predict = Predictor(state[method.inference_part], normalize, device, runtime.autocast)
    monitor = monitor_options(
        args, method, predict, source_data.class_set, validation, target_data.images
    )
    run = TrainingRun(
        from_arguments(RunOptions, vars(args) | flag_defaults(argument_parser(), "train_da")),
        processes=runtime.processes,
        trained=trained,
        metadata=checkpoint_metadata(args, method, runtime.precision, initial, images),
        to_device=partial(to_device, normalize=normalize, device=device),
        monitor=monitor,
    )
    with run:
        learned_source = source_data if method.options.learns_source else None
        for step, source, target in run.steps(args.max_steps, learned_source, target_data):
            factor = poly_decay(step, args.schedule_steps) * warm_up(step, args.warmup)
            set_learning_rate(optimizers.values(), factor)
            zero_gradients(optimizers.values())

            # Gradients of every loss, in micro-batches that add up to the whole batch.
            for source_batch, target_batch in run.micro_batches(source, target):
                run.record(step, method.step(source_batch, target_batch))
            run.sum_gradients()

            update(optimizers.values(), runtime.scaler)
            method.after_step(step)  # the teacher follows, thresholds move
            run.after_step(step + 1)  # log, pictures, validate, save, keep, stop
        run.finish(target_flags(args).scored_root, target_flags(args).scored_layout_name)


if __name__ == "__main__":
    with user_errors_without_traceback():
        adapt(parse_arguments())
