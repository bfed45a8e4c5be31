"""Cost of a training step of each method, relative to supervised training on the source alone.

All methods take turns on synthetic batches. Every step computes on a batch of the source and, if it
adapts, on a target batch of the same size; optimizer steps are included. Reading images is not:
see `benchmark data`.
"""

from pathlib import Path

import torch

from dataset.style.photometric import RANDOM_CHANGES
from model.backbone import BACKBONES
from model.bisenet import BiSeNet
from model.inference.tta import CropRegion
from model.losses.segmentation import build_pixel_weights
from model.preprocessing import INPUT_CONVENTIONS
from model.training_step import Batch, StepContext
from model.uda.base import MethodSetting, find_methods
from utils.benchmark.timing import measure, ratio
from utils.files import write_json
from utils.options.parser import positive_int
from utils.report.tables import markdown_table
from utils.training.environment import environment
from utils.training.optim import update, zero_gradients
from utils.training.precision import autocast_for, choose_device, choose_precision, scaler_for

METHODS = {
    "source-only": {},
    "source-only, hard pixels": {"pixel_weights": "ohem"},
    "source-only, fusion of 128": {"fusion_channels": 128},
    "ADA": {"method": "adversarial", "discriminator": "full"},
    "light ADA": {"method": "adversarial"},
    "light ADA, joint batches": {"method": "adversarial", "joint_batch_norm": True},
    "MinEnt": {"method": "minent"},
    "self-training": {"method": "self-training"},
    "strong": {
        "method": "self-training",
        "fusion_channels": 128,
        "pixel_weights": "class",
        "pseudo_weighting": "class",
        "teacher_context": "whole",
    },
    "taught by MobileNetV2": {
        "method": "distil",
        "teachers": (Path("teacher"),),
        "fusion_channels": 128,
        "lambda_source": 0.0,
        "soft_label_weights": "class",
        "teacher_context": "whole",
    },
}
"""{name: the method, what is special to the network and the loss, and options of the method}.

LAB and other styles of the source are made by the workers that read, and cost the step nothing.
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
    parser.add_argument(
        "--backbone", choices=BACKBONES, default="resnet18", help="of the network that is trained"
    )
    parser.add_argument(
        "--fusion-channels",
        type=positive_int,
        metavar="N",
        help="width of the feature fusion in all rows; default: each row's own",
    )
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
    backbone: str, size: tuple[int, int, int], device: torch.device, precision: str, kind: dict
):
    """A function that does one step of a method: a value of METHODS.

    ``size``: (images, height, width).
    """
    torch.manual_seed(0)
    options = dict(kind)
    network = BiSeNet(19, backbone, fusion_channels=options.pop("fusion_channels", None))
    network = network.to(device, memory_format=torch.channels_last).train()
    weights = build_pixel_weights(options.pop("pixel_weights", "none"), torch.ones(19), device)
    scaler = scaler_for(device, precision)
    context = StepContext(autocast_for(device, precision), scaler, pixel_weights=weights)
    name = options.pop("method", None)
    source, target = synthetic_batches(size, device, options.get("teacher_context") == "whole")
    sgd = torch.optim.SGD(network.parameters(), 5e-4, momentum=0.9, weight_decay=5e-4)
    method = None
    if name is not None:
        normalize = INPUT_CONVENTIONS["imagenet"]
        setting = MethodSetting(
            context,
            19,
            normalize,
            random_changes=RANDOM_CHANGES,
            read_checkpoint=lambda _path: light_teacher(),
        )
        method = find_methods()[name]
        method = method(network, method.Options(**options), setting)
    optimizers = [sgd, *method.optimizers.values()] if method else [sgd]

    def step() -> None:
        zero_gradients(optimizers)
        if method is None:
            context.add_supervised_gradients(network, source)
        else:
            method.step(source, target)
        update(optimizers, scaler)
        if method is not None:
            method.after_step(1000)

    return step


def light_teacher() -> dict:
    """What a checkpoint of a teacher holds."""
    network = BiSeNet(19, "mobilenet_v2", fusion_channels=128)
    return {
        "name": "teacher",
        "architecture": network.architecture,
        "input": INPUT_CONVENTIONS["imagenet"].as_dict(),
        "parts": {"model": network.state_dict()},
    }


def synthetic_batches(
    size: tuple[int, int, int], device: torch.device, with_context: bool
) -> tuple[Batch, Batch]:
    """A source and a target batch of random images, the target's perhaps with full images."""
    images = torch.randn(2, size[0], 3, *size[1:], device=device)
    labels = torch.randint(0, 19, size, dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8)
    source, target = (
        Batch(
            image.contiguous(memory_format=torch.channels_last),
            label.to(device),
            label,
            list(range(size[0])),
            label.numel(),
        )
        for image, label in zip(images, labels, strict=True)
    )
    if with_context:  # as many pixels as a crop
        middle = torch.tensor([[0.5, 0, 0], [0, 0.5, 0]], device=device).expand(size[0], 2, 3)
        region = CropRegion(middle, size[1:])
        target = target._replace(full_image=target.image, crop_region=region)
    return source, target


def run(args) -> None:
    device = choose_device(args.device)
    precision = choose_precision(args.precision, device)
    size = (args.batch_size, *args.crop_size)
    names = ["source-only", *(name for name in args.methods if name != "source-only")]
    width = {} if args.fusion_channels is None else {"fusion_channels": args.fusion_channels}
    steps = {
        name: training_step(args.backbone, size, device, precision, METHODS[name] | width)
        for name in names
    }
    seconds = measure(steps, device, args.repeats)
    times = {name: ratio(seconds[name], seconds["source-only"]) for name in names}
    medians = {name: 1000 * sorted(seconds[name])[len(seconds[name]) // 2] for name in names}
    rows = [[name, f"{medians[name]:.0f}", f"{times[name]:.2f}"] for name in names]
    title = f"a step of {size[0]} x {size[1]}x{size[2]}, {args.backbone}, {precision}"
    print(markdown_table([title, "ms (median)", "times source-only"], rows))
    if args.json:
        figures = {"seconds": seconds, "times_source_only": times}
        figures |= {"backbone": args.backbone, "fusion_channels": args.fusion_channels}
        figures |= {"size": list(size), "precision": precision, **environment()}
        write_json(args.json, figures)
