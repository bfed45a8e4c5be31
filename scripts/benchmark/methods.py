"""What a training step of each method costs, against supervised training on the source alone;
synthetic batches, all methods in turns.

Every step computes on the source's batch and, where it adapts, on a target batch of the same size;
optimizers included. What reads the images is not measured here: see `benchmark data`.
"""

from pathlib import Path

import torch

from dataset.style.photometric import random_blur_sigma, random_color_matrix
from model.bisenet import BiSeNet
from model.discriminator import build_discriminator
from model.inference.tta import CropRegion
from model.losses.segmentation import build_pixel_weights
from model.preprocessing import INPUT_CONVENTIONS
from model.uda import base as methods
from model.uda.adversarial import Computation, Opponent, game
from model.uda.pseudo_label_weight import Confidence
from model.uda.self_training import Teacher
from model.uda.strong_augmentation import StrongAugmentation
from utils.benchmark.timing import measure, ratio
from utils.files import write_json
from utils.options.parser import positive_int
from utils.report.tables import markdown_table
from utils.training.environment import environment
from utils.training.precision import autocast_for, choose_device, choose_precision, scaler_for

METHODS = {
    "source-only": {},
    "source-only, hard pixels": {"weights": "hard"},
    "source-only, fusion of 128": {"fusion": 128},
    "ADA": {"method": "full"},
    "light ADA": {"method": "light"},
    "light ADA, joint batches": {"method": "light", "joint": True},
    "MinEnt": {"method": "minent"},
    "self-training": {"method": "self-training"},
    "strong": {
        "method": "self-training",
        "fusion": 128,
        "weights": "class",
        "per": "class",
        "whole": True,
    },
}
"""LAB and the other looks of the source are made by the workers that read, and cost the step
nothing.
"""


def add_arguments(parser) -> None:
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=tuple(METHODS),
        default=tuple(METHODS),
        metavar="METHOD",
        help="which",
    )
    parser.add_argument("--backbone", choices=("resnet18", "resnet101"), default="resnet18")
    parser.add_argument(
        "--batch-size", type=positive_int, default=4, help="images per step and domain"
    )
    parser.add_argument(
        "--crop-size", type=positive_int, nargs=2, metavar=("HEIGHT", "WIDTH"), default=(128, 256)
    )
    parser.add_argument(
        "--repeats",
        type=positive_int,
        default=5,
        help="timed steps of each method, after two to warm up",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")


def training_step(
    backbone: str, size: tuple[int, int, int], device: torch.device, precision: str, **kind
):
    """A function that does one step of a method. ``size``: (images, height, width); ``kind``: a
    value of METHODS.
    """
    torch.manual_seed(0)
    model = (
        BiSeNet(19, backbone, fusion_channels=kind.get("fusion"))
        .to(device, memory_format=torch.channels_last)
        .train()
    )
    autocast, scaler = autocast_for(device, precision), scaler_for(device, precision)
    weighting = build_pixel_weights(kind.get("weights", "equal"), torch.ones(19), device)
    method = build_method(model, Computation(autocast, scaler, weighting=weighting), device, **kind)
    optimizers = [
        torch.optim.SGD(model.parameters(), 5e-4, momentum=0.9, weight_decay=5e-4),
        *method.optimizers.values(),
    ]
    images = torch.randn(2, size[0], 3, *size[1:], device=device)
    source_label = torch.randint(0, 19, size, dtype=torch.uint8)
    inside = torch.zeros(size, dtype=torch.uint8)
    source, target = (
        methods.Batch(
            image.contiguous(memory_format=torch.channels_last),
            label.to(device),
            label,
            list(range(size[0])),
        )
        for image, label in zip(images, (source_label, inside), strict=True)
    )
    if kind.get("whole"):  # as many pixels as a crop
        middle = torch.tensor([[0.5, 0, 0], [0, 0.5, 0]], device=device)
        target = target._replace(
            whole=target.image, part=CropRegion(middle.expand(size[0], 2, 3), size[1:])
        )

    def step() -> None:
        for optimizer in optimizers:
            optimizer.zero_grad()
        method.step(source, target, valid_pixels=source_label.numel())
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()
        method.after_step(model, 1000)

    return step


def build_method(
    model: BiSeNet,
    computation: Computation,
    device: torch.device,
    method: str = "none",
    joint: bool = False,
    per: str = "image",
    **_: object,
) -> methods.Method:
    """The method called as in METHODS; "none": supervised on the source. ``per``: of the confidence
    in a teacher's labels.
    """
    if method == "minent":
        return methods.minent(model, 0.01, computation)
    if method == "self-training":
        looks = StrongAugmentation(
            random_color_matrix,
            random_blur_sigma,
            0.8,
            0.5,
            **INPUT_CONVENTIONS["imagenet"].as_dict(),
        )
        return methods.self_training(
            model,
            Teacher(model, 0.99),
            looks,
            Confidence(0.968, per).to(device),
            joint,
            computation,
        )
    if method == "none":

        def supervised(source: methods.Batch, _target: methods.Batch, valid_pixels: int) -> dict:
            loss, _ = computation.supervised(model, source.image, source.label, valid_pixels)
            return {"loss/segmentation": loss}

        return methods.Method(supervised)
    discriminator = (
        build_discriminator(method, 19).to(device, memory_format=torch.channels_last).train()
    )
    return methods.adversarial(
        model, [Opponent(discriminator, 0.01)], 1e-5, game(), joint, computation
    )


def run(args) -> None:
    device = choose_device(args.device)
    precision = choose_precision(args.precision, device)
    size = (args.batch_size, *args.crop_size)
    names = ["source-only", *(name for name in args.methods if name != "source-only")]
    steps = {
        name: training_step(args.backbone, size, device, precision, **METHODS[name])
        for name in names
    }
    seconds = measure(steps, device, args.repeats)
    times = {name: ratio(seconds[name], seconds["source-only"]) for name in names}
    rows = [
        [name, f"{1000 * sorted(seconds[name])[len(seconds[name]) // 2]:.0f}", f"{times[name]:.2f}"]
        for name in names
    ]
    print(
        markdown_table(
            [
                f"a step of {size[0]} x {size[1]}x{size[2]}, {args.backbone}, {precision}",
                "ms (median)",
                "times source-only",
            ],
            rows,
        )
    )
    if args.json:
        write_json(
            args.json,
            {
                "seconds": seconds,
                "times_source_only": times,
                "size": list(size),
                "precision": precision,
                **environment(),
            },
        )
