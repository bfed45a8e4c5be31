"""Step 2 of the paper, supervised: BiSeNet on Cityscapes, or on GTA5 as the source-only baseline
that adaptation is measured against.
"""

from pathlib import Path

import torch

from dataset.cityscapes import cityscapes
from dataset.labels import CLASS_NAMES, COLORS, IGNORE_INDEX, NUM_CLASSES
from dataset.listing import check_listing, select_by_list
from dataset.loader import evaluation_loader, split, training_loader
from dataset.sampling import RareClassIndex, ShuffledIndex, class_pixels
from dataset.segmentation import Sample, SegmentationDataset
from dataset.source import labelled_images
from dataset.style.photometric import build_style_transforms
from dataset.transforms import RandomScaleCropFlip
from model.batch_norm import with_batch_norm
from model.bisenet import BiSeNet
from model.inference.predictor import Predictor
from model.loading import load_initial_weights
from model.losses.segmentation import build_pixel_weights, segmentation_loss
from model.preprocessing import INPUT_CONVENTIONS
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
from utils.options.parser import (
    new_parser,
    non_negative_int,
    parse_with_recipe,
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
  step 2 of the paper:
    python train.py --train-on cityscapes --cityscapes $CITYSCAPES --list dataset/splits/cityscapes_train_500.txt
  the source-only baseline (opens no Cityscapes file; with --lab --cityscapes ROOT it sees the colors of the target, and nothing else):
    python train.py --train-on gta5 --gta5 $GTA5 --list dataset/splits/gta5_train_500.txt --backbone resnet101 --max-steps 25000
"""


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__, EPILOG)
    add_recipe_argument(parser, RECIPES["train"])
    data = parser.add_argument_group("data")
    data.add_argument(
        "--train-on",
        choices=("cityscapes", "gta5"),
        required=True,
        help="the labelled data set to learn from",
    )
    data.add_argument(
        "--cityscapes", type=Path, metavar="ROOT", help="folder with leftImg8bit/ and gtFine/"
    )
    data.add_argument(
        "--gta5",
        type=Path,
        metavar="ROOT",
        help="folder with images/ and labels/, or one in the tree of Cityscapes or SYNTHIA",
    )
    data.add_argument(
        "--list",
        type=Path,
        metavar="FILE",
        help="train on the images that this file names, one a line; default: all that are found",
    )
    data.add_argument(
        "--target-list",
        type=Path,
        metavar="FILE",
        help="images of Cityscapes train whose looks --lab and --fda take; default: all",
    )
    data.add_argument(
        "--val-list",
        type=Path,
        metavar="FILE",
        help="validate on these images of Cityscapes val; default: all that are found",
    )
    add_style_arguments(parser)
    add_network_arguments(parser)
    add_augmentation_arguments(parser)
    optimization = add_optimization_arguments(parser)
    optimization.add_argument(
        "--epochs",
        type=positive_int,
        help="passes over the training images; --max-steps wins over it",
    )
    optimization.add_argument("--max-steps", type=positive_int, help="stop after so many steps")
    optimization.add_argument(
        "--schedule-steps",
        type=positive_int,
        help="the step at which the learning rate would reach 0; default: the last step",
    )
    optimization.add_argument(
        "--poly-per", choices=("iteration", "epoch"), help="how often the learning rate falls"
    )
    add_device_arguments(parser)
    add_workers_argument(parser)
    add_run_arguments(parser)
    parser.add_argument(
        "--validate-every",
        type=non_negative_int,
        metavar="STEPS",
        help=(
            "score Cityscapes val, also at the end, and keep the best in best.pt; 0: never."
            " Default: 1000 with --train-on cityscapes, else 0"
        ),
    )
    args = parse_with_recipe(parser, RECIPES["train"], argv)
    require_training_sizes(
        parser, [args.batch_size], args.crop_size, args.accumulate, world_size(), args.bn
    )
    if args.validate_every is None:
        args.validate_every = 1000 if args.train_on == "cityscapes" else 0
    if getattr(args, args.train_on) is None:
        parser.error(f"--train-on {args.train_on} needs --{args.train_on} ROOT")
    if (args.validate_every or args.lab or args.fda) and args.cityscapes is None:
        parser.error("--validate-every, --lab and --fda need --cityscapes ROOT")
    if (args.lab or args.fda) and args.train_on == "cityscapes":
        parser.error(
            "--lab and --fda give GTA5 the looks of Cityscapes train; with --train-on cityscapes"
            " there is nothing to transfer"
        )
    if args.target_list and not (args.lab or args.fda):
        parser.error(
            "--target-list names the images whose looks --lab or --fda take; give one of these, or"
            " leave it out"
        )
    return args


def train(args) -> None:
    processes = ProcessGroup(choose_device(args.device))
    device = processes.device
    args.precision = choose_precision(args.precision, device)
    autocast, scaler = autocast_for(device, args.precision), scaler_for(device, args.precision)
    normalize = INPUT_CONVENTIONS[args.input]
    torch.manual_seed(args.seed)

    # Data: what is there, what is taken from it, in which order.
    listing = select_by_list(
        (
            labelled_images(args.gta5)
            if args.train_on == "gta5"
            else cityscapes(args.cityscapes, "train")
        ),
        args.list,
    )
    check_listing(listing)
    geometry = RandomScaleCropFlip(tuple(args.scales), tuple(args.crop_size), args.flip, args.crop)
    pixels = (
        class_pixels(listing) if args.rare_classes or args.pixel_weights == "class" else None
    )  # (images, C)
    order = (
        RareClassIndex(pixels, args.seed, rng_stream=0)
        if args.rare_classes
        else ShuffledIndex(len(listing), args.seed, rng_stream=0)
    )
    needs_target = args.lab or args.fda
    target_listing = (
        select_by_list(cityscapes(args.cityscapes, "train", labels=False), args.target_list)
        if needs_target
        else None
    )
    styles = build_style_transforms(
        listing, target_listing, args.lab, args.fda, args.jitter, args.blur, args.lab_by_class
    )
    padding = normalize.padding(args.padding)
    dataset = SegmentationDataset(
        listing, geometry, order, styles, padding, args.seed, max_class_share=args.max_class_share
    )
    on_gpu, place = device.type == "cuda", (processes.rank, processes.world_size)
    if args.validate_every:
        validation = evaluation_loader(
            select_by_list(cityscapes(args.cityscapes, "val"), args.val_list),
            args.workers,
            on_gpu,
            *place,
        )
    steps_per_epoch = max(1, len(listing) // args.batch_size)
    max_steps = args.max_steps or args.epochs * steps_per_epoch
    args.schedule_steps = args.schedule_steps or max_steps

    # Network and optimizer.
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
    if args.compile:
        model.low_resolution = torch.compile(model.low_resolution)
    weighting = build_pixel_weights(
        args.pixel_weights, None if pixels is None else torch.from_numpy(pixels.sum(0)), device
    )
    optimizer = sgd(model, args.lr, args.momentum, args.weight_decay, args.new_layer_rate)
    name = args.name or f"{args.train_on}-{args.backbone}-seed{args.seed}"
    together = batch_norm_group_sizes(
        [args.batch_size], args.accumulate, processes.world_size, args.bn
    )
    metadata = {
        "name": name,
        "architecture": model.architecture,
        "input": normalize.as_dict(),
        "settings": (
            plain(vars(args))
            | {
                "data": listing.fingerprint(),
                "batch_norm_group_sizes": together,
            }
        ),
        "cityscapes_images": (
            listing.names
            if args.train_on == "cityscapes"
            else target_listing.names
            if target_listing
            else []
        ),
    }

    predictor = Predictor(model, normalize, device, autocast)

    def validate() -> Scores:
        """The scores on Cityscapes val, whose images the processes share."""
        processes.broadcast(model)  # with --bn local each process has its own running statistics
        matrix, ignored = evaluate(predictor, validation, NUM_CLASSES)
        return scores(processes.all_reduce_sum(matrix), processes.all_reduce_sum(ignored))

    def show_prediction(run: RunFolder, step: int, batch: Sample) -> None:
        prediction = predictor(batch.image[:1])[0].cpu().numpy()
        run.log_image(
            step,
            "train/image_prediction_truth",
            side_by_side(batch.image[0].numpy(), [prediction, batch.label[0].numpy()], COLORS),
        )

    panel_every = args.panel_every and panel_interval(args.panel_every, max_steps, pictures=1)
    compared = ["loss/segmentation"] + (["val/miou"] if args.validate_every else [])
    with (
        processes,
        RunFolder(args.output / name, args.resume, processes.is_first) as run,
        StopRequest() as stop,
    ):
        meter = LossMeter(processes)
        state = TrainingState(
            {"model": model, "optimizer": optimizer, "scaler": scaler},
            metadata,
            device,
            meter,
            run.writes,
        )
        if args.resume:
            state.resume(run.last, RESUME_MAY_CHANGE)
        processes.broadcast(model)
        first_step = state.step
        run.record(
            settings=metadata["settings"],
            device=str(device),
            processes=processes.world_size,
            seed=args.seed,
            first_step=first_step,
        )
        run.open_events(first_step)
        run.log_hparams(metadata["settings"], compared)
        where = configure_precision(device, args.precision) + (
            f", {processes.world_size} processes" if processes.world_size > 1 else ""
        )
        run.print(
            f"{name}: {len(listing)} images, steps {first_step} to {max_steps}, {where}, into"
            f" {run.folder}"
        )

        loader = training_loader(
            dataset, args.batch_size, first_step, max_steps, args.workers, on_gpu, *place
        )
        clock = StepTimer(loader, first_step, max_steps, args.batch_size, show=run.writes)
        for step, batch in clock:
            per = steps_per_epoch if args.poly_per == "epoch" else 1
            set_learning_rate(
                optimizer,
                poly_decay(step, args.schedule_steps, per=per) * warm_up(step, args.warmup),
            )
            optimizer.zero_grad()

            # The batch in parts, here and in other processes: every loss is divided by what the
            # whole batch holds, so gradients add up.
            valid_pixels = processes.all_reduce_sum(int((batch.label != IGNORE_INDEX).sum()))
            for part in split(batch, args.accumulate):
                image = normalize(part.image.to(device, non_blocking=True))  # (N, 3, H, W)
                label = part.label.to(device, non_blocking=True)  # (N, H, W)
                with autocast():
                    output = model.low_resolution(image)
                loss = segmentation_loss(
                    output, label, IGNORE_INDEX, valid_pixels, pixel_weights=weighting
                )
                scaler.scale(loss).backward()
                meter.add(step, {"loss/segmentation": loss.detach()}, listing.names_of(part.index))
            processes.sum_gradients(model)
            scaler.step(optimizer)
            scaler.update()

            done = step + 1
            stopping = processes.any(bool(stop))  # asked once: a signal may come at any moment
            last = done == max_steps or stopping
            if done % args.log_every == 0 or last:
                rates = {
                    "learning_rate": optimizer.param_groups[0]["lr"],
                    "gradient_norm/model": gradient_norm(model).item(),
                }
                run.log(done, meter.read() | rates | clock.read(done), clock.bar)
            if panel_every and (step == 0 or done % panel_every == 0):
                show_prediction(run, done, batch)
            if args.validate_every and (done % args.validate_every == 0 or done == max_steps):
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
                state.save(run.last, done, finished=done == max_steps)
            if stopping:
                run.print(
                    f"Stopped by {stop} after step {done}, saved to {run.last}. Continue with the"
                    " same command and --resume."
                )
                break
        else:
            run.print(f"Done. Score it with: python eval.py {run.last} --cityscapes ROOT")


if __name__ == "__main__":
    with user_errors_without_traceback():
        train(parse_arguments())
