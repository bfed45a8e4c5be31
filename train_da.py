"""Steps 3 and 4 of the paper: BiSeNet learns from labelled GTA5 and adapts to unlabelled
Cityscapes.

The segmenter learns from the source's labels; a discriminator learns to tell source segmentations
from target ones; the segmenter learns to deceive it on the target (Eqs. 3-5). With --lab every
source image first takes the colors of a random target image (Eq. 6). No label of the target is
opened, unless --validate-every asks for scores along the way, which change nothing in the training.
"""

import math
from dataclasses import replace
from pathlib import Path

import torch

from dataset.cityscapes import cityscapes
from dataset.labels import CLASS_NAMES, COLORS, IGNORE_INDEX, NUM_CLASSES
from dataset.listing import check_listing, select_by_list
from dataset.loader import evaluation_loader, split, training_loader
from dataset.sampling import CyclicIndex, RareClassIndex, ShuffledIndex, class_pixels
from dataset.segmentation import Sample, SegmentationDataset, common_size
from dataset.source import labelled_images
from dataset.style.photometric import build_style_transforms, random_blur_sigma, random_color_matrix
from dataset.target import unlabelled_images, with_labels
from dataset.transforms import RandomScaleCropFlip, WholeImage
from model.batch_norm import with_batch_norm
from model.bisenet import BiSeNet
from model.discriminator import CONVS, build_discriminator
from model.inference.predictor import Predictor
from model.inference.tta import CropRegion
from model.loading import load_initial_weights
from model.losses.segmentation import build_pixel_weights
from model.preprocessing import INPUT_CONVENTIONS
from model.uda import base as methods
from model.uda.adversarial import LOSSES, SHOWN, Computation, Opponent, game
from model.uda.base import Batch, Method
from model.uda.pseudo_label_weight import PER, Confidence
from model.uda.self_training import STATISTICS, Teacher
from model.uda.strong_augmentation import StrongAugmentation
from utils.evaluation.evaluate import evaluate
from utils.evaluation.metrics import Scores, scores
from utils.options.groups import (
    add_augmentation_arguments,
    add_device_arguments,
    add_network_arguments,
    add_optimization_arguments,
    add_recipe_argument,
    add_run_arguments,
    add_style_arguments,
    add_workers_argument,
    batch_norm_group_sizes,
    require_training_sizes,
)
from utils.options.method_groups import add_method_arguments, refuse_flags_without_effect
from utils.options.parser import (
    new_parser,
    non_negative_int,
    parse_with_recipe,
    positive_float,
    positive_int,
    user_errors_without_traceback,
)
from utils.options.recipes import RECIPES, RESUME_MAY_CHANGE
from utils.report.pictures import side_by_side
from utils.training.checkpoint import TrainingState, plain, read_checkpoint
from utils.training.distributed import ProcessGroup, world_size
from utils.training.meters import LossMeter, StepTimer, panel_interval
from utils.training.optim import gradient_norm, poly_decay, set_learning_rate, sgd, warm_up
from utils.training.precision import (
    autocast_for,
    choose_device,
    choose_precision,
    configure_precision,
    scaler_for,
)
from utils.training.run_folder import RunFolder
from utils.training.signals import StopRequest

EPILOG = """examples:
  ADA (step 3):            python train_da.py --discriminator full  --gta5 $GTA5 --cityscapes $CITYSCAPES
  light ADA (step 3):      python train_da.py --discriminator light --gta5 $GTA5 --cityscapes $CITYSCAPES
  light LAB-ADA (step 4):  python train_da.py --discriminator light --lab --gta5 $GTA5 --cityscapes $CITYSCAPES
  with the paper's 500 + 500 images add
    --source-list dataset/splits/gta5_train_500.txt --target-list dataset/splits/cityscapes_train_500.txt
"""

OVERLAP_WARNING = (
    "WARNING: --target-split val adapts on the images of Cityscapes val, which are also the scored"
    " ones (transductive). Scores of this run on val are not comparable with those of runs that"
    " never saw these images."
)


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__, EPILOG)
    add_recipe_argument(parser, RECIPES["train_da"])
    data = parser.add_argument_group("data")
    data.add_argument(
        "--gta5",
        type=Path,
        metavar="ROOT",
        required=True,
        help=(
            "the source: folder with images/ and labels/, or one in the tree of Cityscapes or"
            " SYNTHIA"
        ),
    )
    data.add_argument(
        "--cityscapes", type=Path, metavar="ROOT", help="the target: folder with leftImg8bit/"
    )
    data.add_argument(
        "--target-images",
        nargs="+",
        metavar="PATTERN",
        help=(
            "another target: unlabelled images, as files, folders, or patterns in quotes such as"
            ' "dashcam/**/*.jpg"'
        ),
    )
    data.add_argument(
        "--source-list",
        type=Path,
        metavar="FILE",
        help="source images to use, one name a line; default: all that are found",
    )
    data.add_argument(
        "--target-list",
        type=Path,
        metavar="FILE",
        help="target images to use, one name a line; default: all that are found",
    )
    data.add_argument(
        "--val-list",
        type=Path,
        metavar="FILE",
        help="score these images of Cityscapes val; default: all that are found",
    )
    data.add_argument(
        "--target-split",
        choices=("train", "val"),
        help=(
            "where target images come from. With val the network adapts on the very images that are"
            " scored (transductive): a warning says so"
        ),
    )
    data.add_argument(
        "--target-view",
        choices=("crops", "whole"),
        help=(
            "target images augmented and cropped like the source's, or whole, unaugmented and"
            " unshuffled, as the authors' code does"
        ),
    )
    data.add_argument(
        "--target-scales",
        type=positive_float,
        nargs="+",
        metavar="SCALE",
        help="target images are resized by these instead of those of --scales",
    )
    add_method_arguments(parser, tuple(CONVS), tuple(LOSSES), tuple(SHOWN), PER, STATISTICS)
    add_style_arguments(parser)
    add_network_arguments(parser)
    add_augmentation_arguments(parser)
    optimization = add_optimization_arguments(parser)
    optimization.add_argument(
        "--target-batch-size",
        type=positive_int,
        help="target images per step; default: as --batch-size",
    )
    optimization.add_argument("--max-steps", type=positive_int, help="stop after so many steps")
    optimization.add_argument(
        "--schedule-steps",
        type=positive_int,
        help="the step at which all learning rates would reach 0",
    )
    add_device_arguments(parser)
    add_workers_argument(parser)
    add_run_arguments(parser)
    parser.add_argument(
        "--validate-every",
        type=non_negative_int,
        default=0,
        metavar="STEPS",
        help=(
            "score Cityscapes val, also at the end, and keep the best in best.pt: opens val's"
            " labels, for watching only; 0: never"
        ),
    )
    args = parse_with_recipe(parser, RECIPES["train_da"], argv)
    refuse_flags_without_effect(parser, args.method, vars(args))
    if args.cityscapes is None and (args.target_images is None or args.validate_every):
        parser.error(
            "a target is needed: --cityscapes ROOT, or --target-images PATTERN; --validate-every"
            " needs --cityscapes"
        )
    if args.method == "pseudo-labels" and args.pseudo_labels is None:
        parser.error(
            "--method pseudo-labels needs --pseudo-labels ROOT, as python -m"
            " scripts.make_pseudo_labels makes it"
        )
    if args.target_view == "whole" and args.target_scales:
        parser.error(
            "--target-scales: without effect with --target-view whole, which resizes nothing. Leave"
            " one, or the recipe that sets it, out"
        )
    args.target_batch_size = args.target_batch_size or args.batch_size
    batch_sizes = [args.batch_size, args.target_batch_size]
    require_training_sizes(
        parser, batch_sizes, args.crop_size, args.accumulate, world_size(), args.bn
    )
    if args.method == "self-training" and args.target_batch_size != args.batch_size:
        parser.error(
            "--method self-training pastes each source image onto a target image: found"
            f" {args.batch_size} and {args.target_batch_size} images"
        )
    return args


def adapt(args) -> None:
    processes = ProcessGroup(choose_device(args.device))
    device, place = processes.device, (processes.rank, processes.world_size)
    on_gpu = device.type == "cuda"
    args.precision = choose_precision(args.precision, device)
    autocast, scaler = autocast_for(device, args.precision), scaler_for(device, args.precision)
    normalize = INPUT_CONVENTIONS[args.input]
    torch.manual_seed(args.seed)

    # Data: a labelled source, perhaps in the target's colors, and a target without labels.
    source_listing = select_by_list(labelled_images(args.gta5), args.source_list)
    target_listing = (
        unlabelled_images(args.target_images)
        if args.target_images
        else cityscapes(args.cityscapes, args.target_split, labels=False)
    )
    target_listing = select_by_list(target_listing, args.target_list)
    if args.pseudo_labels:
        target_listing = with_labels(target_listing, args.pseudo_labels, args.target_split)
    check_listing(source_listing)
    if args.validate_every:
        validation = evaluation_loader(
            select_by_list(cityscapes(args.cityscapes, "val"), args.val_list),
            args.workers,
            on_gpu,
            *place,
        )
    crops = RandomScaleCropFlip(tuple(args.scales), tuple(args.crop_size), args.flip, args.crop)
    styles = build_style_transforms(
        source_listing,
        target_listing,
        args.lab,
        args.fda,
        args.jitter,
        args.blur,
        args.lab_by_class,
    )
    pixels = (
        class_pixels(source_listing) if args.rare_classes or args.pixel_weights == "class" else None
    )  # (images, C)
    source_order = (
        RareClassIndex(pixels, args.seed, 0)
        if args.rare_classes
        else ShuffledIndex(len(source_listing), args.seed, rng_stream=0)
    )
    padding = normalize.padding(args.padding)
    source = SegmentationDataset(
        source_listing,
        crops,
        source_order,
        styles,
        padding,
        args.seed,
        rng_stream=0,
        max_class_share=args.max_class_share,
    )
    if args.target_view == "crops":
        target_geometry = replace(crops, scales=tuple(args.target_scales or args.scales))
        target_order = ShuffledIndex(len(target_listing), args.seed, rng_stream=1)
    else:
        target_geometry, target_order = WholeImage(), CyclicIndex(len(target_listing))
    valid_rows = tuple(args.ignore_rows) if args.method == "self-training" else None
    # Whole images, where the teacher looks at them, come in the largest of its sizes.
    largest = max(args.teacher_scales) if args.teacher_view == "whole" else 1.0
    context_size = (
        common_size(target_listing, math.prod(args.crop_size) * largest**2)
        if args.teacher_view == "whole"
        else None
    )
    target = SegmentationDataset(
        target_listing,
        target_geometry,
        target_order,
        (),
        padding,
        args.seed,
        1,
        valid_rows,
        context_size=context_size,
    )

    # The network, and the method with what belongs to it.
    weights = (
        None
        if args.backbone_weights == "none" or args.resume or args.init
        else args.backbone_weights
    )
    model = BiSeNet(NUM_CLASSES, args.backbone, weights, args.fusion_channels)
    if args.init:
        load_initial_weights(model, read_checkpoint(args.init))
    model = with_batch_norm(
        model.to(device, memory_format=torch.channels_last).train(), args.bn, device
    )
    class_totals = None if pixels is None else torch.from_numpy(pixels.sum(0))
    weighting = build_pixel_weights(args.pixel_weights, class_totals, device)
    computation = Computation(
        autocast, scaler, 1 / (args.accumulate * processes.world_size), weighting
    )
    joint = args.domain_batches == "joint"

    def adversarial() -> Method:
        def opponent(level: str, lambda_adv: float) -> Opponent:
            discriminator = (
                build_discriminator(args.discriminator, NUM_CLASSES)
                .to(device, memory_format=torch.channels_last)
                .train()
            )
            return Opponent(discriminator, lambda_adv, level)

        levels = {"logits": args.lambda_adv} | (
            {"aux16": args.lambda_adv_aux} if args.lambda_adv_aux else {}
        )
        opponents = [opponent(level, lambda_adv) for level, lambda_adv in levels.items()]
        rules = game(args.adversarial_loss, args.discriminator_input)
        return methods.adversarial(model, opponents, args.d_lr, rules, joint, computation)

    def self_training() -> Method:
        teacher = Teacher(
            model,
            args.ema,
            args.teacher_statistics,
            [scale / largest for scale in args.teacher_scales],
        )
        looks = StrongAugmentation(
            random_color_matrix,
            random_blur_sigma,
            args.mixed_jitter,
            args.mixed_blur,
            **normalize.as_dict(),
        )
        confidence = Confidence(
            args.confidence,
            args.confidence_per,
            NUM_CLASSES,
            processes.all_reduce_sum,
            args.pseudo_weight,
        ).to(device)
        return methods.self_training(model, teacher, looks, confidence, joint, computation)

    method = {
        "adversarial": adversarial,
        "minent": lambda: methods.minent(model, args.lambda_entropy, computation),
        "pseudo-labels": lambda: methods.pseudo_labels(model, computation),
        "self-training": self_training,
    }[args.method]()
    optimizers = {
        "optimizer": sgd(model, args.lr, args.momentum, args.weight_decay, args.new_layer_rate),
        **method.optimizers,
    }
    if args.compile:
        model.low_resolution = torch.compile(model.low_resolution)

    described = args.discriminator if args.method == "adversarial" else args.method
    name = args.name or f"{described}{'-lab' if args.lab else ''}-{args.backbone}-seed{args.seed}"
    fingerprints = {"source": source_listing.fingerprint(), "target": target_listing.fingerprint()}
    together = batch_norm_group_sizes(
        [args.batch_size, args.target_batch_size], args.accumulate, processes.world_size, args.bn
    )
    metadata = {
        "name": name,
        "architecture": model.architecture,
        "input": normalize.as_dict(),
        **({"discriminator": args.discriminator} if args.method == "adversarial" else {}),
        "deployed": "model" if method.teacher is None else "teacher",
        "settings": plain(vars(args)) | fingerprints | {"batch_norm_group_sizes": together},
        "cityscapes_images": target_listing.names,
    }
    parts = {"model": model, "scaler": scaler, **optimizers, **method.parts()}
    deployed = model if method.teacher is None else method.teacher.network

    def on_device(sample: Sample) -> Batch:
        def moved(field: torch.Tensor) -> torch.Tensor:
            return field.to(device, non_blocking=True)

        label = None if sample.label is None else moved(sample.label)
        batch = Batch(
            normalize(moved(sample.image)), label, sample.label, sample.sample_seed.tolist()
        )
        if sample.full_image is None:
            return batch
        return batch._replace(
            whole=normalize(moved(sample.full_image)),
            part=CropRegion(moved(sample.affine_theta), sample.image.shape[1:3]),
        )

    predictor = Predictor(deployed, normalize, device, autocast)

    def validate() -> Scores:
        """The scores on Cityscapes val, whose images the processes share."""
        processes.broadcast(deployed)  # with --bn local each process has its own running statistics
        matrix, ignored = evaluate(predictor, validation, NUM_CLASSES)
        return scores(processes.all_reduce_sum(matrix), processes.all_reduce_sum(ignored))

    def show_prediction(run: RunFolder, step: int, domain: str, batch: Sample) -> None:
        prediction = predictor(batch.image[:1])[0].cpu().numpy()
        maps = [prediction] if batch.label is None else [prediction, batch.label[0].numpy()]
        run.log_image(
            step,
            f"{domain}/image_prediction_truth",
            side_by_side(batch.image[0].numpy(), maps, COLORS),
        )

    panel_every = args.panel_every and panel_interval(args.panel_every, args.max_steps, pictures=2)
    compared = ["loss/segmentation"] + (["val/miou"] if args.validate_every else [])
    with (
        processes,
        RunFolder(args.output / name, args.resume, processes.is_first) as run,
        StopRequest() as stop,
    ):
        meter = LossMeter(processes)
        state = TrainingState(parts, metadata, device, meter, run.writes)
        if args.resume:
            state.resume(run.last, RESUME_MAY_CHANGE)
        processes.broadcast(model, *method.opponents.values())
        first_step = state.step
        warnings = (
            [OVERLAP_WARNING] if args.target_split == "val" and not args.target_images else []
        )
        circumstances = {
            "device": str(device),
            "processes": processes.world_size,
            "warnings": warnings,
        }
        run.record(
            settings=metadata["settings"], seed=args.seed, first_step=first_step, **circumstances
        )
        run.open_events(first_step)
        run.log_hparams(metadata["settings"], compared)
        where = configure_precision(device, args.precision) + (
            f", {processes.world_size} processes" if processes.world_size > 1 else ""
        )
        images = f"{len(source_listing)} source and {len(target_listing)} target images"
        run.print(
            f"{name}: {images}, steps {first_step} to {args.max_steps}, {where}, into {run.folder}",
            *warnings,
        )

        source_batches = training_loader(
            source, args.batch_size, first_step, args.max_steps, args.workers, on_gpu, *place
        )
        target_batches = training_loader(
            target, args.target_batch_size, first_step, args.max_steps, args.workers, on_gpu, *place
        )
        batches = zip(source_batches, target_batches, strict=True)
        clock = StepTimer(
            batches,
            first_step,
            args.max_steps,
            args.batch_size + args.target_batch_size,
            show=run.writes,
        )
        for step, (source_batch, target_batch) in clock:
            factor = poly_decay(step, args.schedule_steps) * warm_up(step, args.warmup)
            for each in optimizers.values():
                set_learning_rate(each, factor)
                each.zero_grad()

            # The batch in parts, here and in other processes: every loss is divided by what the
            # whole batch holds, so gradients add up.
            valid_pixels = processes.all_reduce_sum(int((source_batch.label != IGNORE_INDEX).sum()))
            for source_part, target_part in zip(
                split(source_batch, args.accumulate),
                split(target_batch, args.accumulate),
                strict=True,
            ):
                losses = method.step(
                    on_device(source_part), on_device(target_part), valid_pixels=valid_pixels
                )
                meter.add(
                    step,
                    losses,
                    source_listing.names_of(source_part.index)
                    + target_listing.names_of(target_part.index),
                )
            processes.sum_gradients(model, *method.opponents.values())
            for each in optimizers.values():
                scaler.step(each)
            scaler.update()
            method.after_step(model, step)

            done = step + 1
            stopping = processes.any(bool(stop))  # asked once: a signal may come at any moment
            last = done == args.max_steps or stopping
            if done % args.log_every == 0 or last:
                rates = {"learning_rate": optimizers["optimizer"].param_groups[0]["lr"]}
                rates |= {
                    f"learning_rate/{part}": each.param_groups[0]["lr"]
                    for part, each in zip(method.opponents, method.optimizers.values(), strict=True)
                }
                norms = {
                    f"gradient_norm/{part}": gradient_norm(each).item()
                    for part, each in {"model": model, **method.opponents}.items()
                }
                losses = meter.read()
                run.log(done, losses | rates | norms | clock.read(done), clock.bar)
                run.log_warning(done, method.watch(done, losses))
            if panel_every and (step == 0 or done % panel_every == 0):
                show_prediction(run, done, "source", source_batch)
                show_prediction(
                    run,
                    done,
                    "target",
                    (
                        target_batch
                        if target_listing.has_labels
                        else target_batch._replace(label=None)
                    ),
                )
            if args.validate_every and (done % args.validate_every == 0 or done == args.max_steps):
                result = validate()
                run.log_scores(
                    done,
                    result.miou,
                    result.pixel_accuracy,
                    dict(zip(CLASS_NAMES, result.iou, strict=True)),
                    clock.bar,
                )
                state.save_if_best(run.best, done, result.miou)
            if done % args.save_every == 0 or last:
                state.save(run.last, done, finished=done == args.max_steps)
            if stopping:
                run.print(
                    f"Stopped by {stop} after step {done}, saved to {run.last}. Continue with the"
                    " same command and --resume."
                )
                break
        else:
            run.print(
                f"Done. Score it with: python eval.py {run.last} --cityscapes"
                f" {args.cityscapes or 'ROOT'}"
            )


if __name__ == "__main__":
    with user_errors_without_traceback():
        adapt(parse_arguments())
