"""Speed and memory of an adversarial iteration, compared with the reference implementation.

The light discriminator, on synthetic batches; the reference is scripts/baselines.py. Every
measurement has its own process, and the sides take turns, so that a busy machine slows all of them.
bf16 is left out, and its ratios are null, on hardware that would only emulate it.
"""

import multiprocessing
import statistics
import time
from pathlib import Path

import torch

from model.bisenet import BiSeNet
from model.preprocessing import INPUT_CONVENTIONS
from model.training_step import Batch, StepContext
from model.uda.adversarial import AdversarialAdaptation, AdversarialOptions
from model.uda.base import MethodSetting
from scripts.baselines import BaselineBiSeNet, adversarial_iteration, baseline_discriminator
from utils.files import write_json
from utils.options.parser import positive_int
from utils.report.tables import markdown_table
from utils.training.environment import environment
from utils.training.optim import update, zero_gradients
from utils.training.precision import autocast_for, choose_device, choose_precision, scaler_for


def add_arguments(parser) -> None:
    parser.add_argument("--backbone", choices=("resnet18", "resnet101"), default="resnet18")
    parser.add_argument(
        "--batch-size", type=positive_int, default=4, help="images per step and domain"
    )
    parser.add_argument(
        "--crop-size",
        type=positive_int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        default=(256, 512),
        help="crop of the timed steps",
    )
    parser.add_argument(
        "--memory-size",
        type=positive_int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        default=(512, 1024),
        help="crop that memory is measured at",
    )
    parser.add_argument(
        "--rounds",
        type=positive_int,
        default=3,
        help="processes of each side; the median of their fastest steps counts",
    )
    parser.add_argument(
        "--steps", type=positive_int, default=2, help="timed steps a process, after one to warm up"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and ratios")


def iteration(
    side: str, backbone: str, batch_size: int, size: tuple[int, int], device: torch.device
):
    """A function that does one iteration on a fixed synthetic batch, optimizer steps included.

    ``side``: "baseline", or the precision of ours.
    """
    torch.manual_seed(0)
    source, target = torch.randn(2, batch_size, 3, *size, device=device)
    label = torch.randint(0, 19, (batch_size, *size), device=device)
    if side == "baseline":
        torch.backends.cudnn.allow_tf32 = True  # torch's default: the published manner of working
        model = BaselineBiSeNet(backbone=backbone).to(device).train()
        discriminator = baseline_discriminator().to(device)
        adam = torch.optim.Adam(discriminator.parameters(), 1e-5, betas=(0.9, 0.99))
        sgd = new_sgd(model)
        return lambda: adversarial_iteration(model, discriminator, sgd, adam, source, label, target)

    model = BiSeNet(19, backbone).to(device, memory_format=torch.channels_last).train()
    scaler = scaler_for(device, side)
    setting = MethodSetting(
        StepContext(autocast_for(device, side), scaler), 19, INPUT_CONVENTIONS["imagenet"]
    )
    method = AdversarialAdaptation(model, AdversarialOptions(), setting)
    optimizers = [new_sgd(model), *method.optimizers.values()]
    label = label.to(torch.uint8)
    source_batch, target_batch = (
        Batch(image.contiguous(memory_format=torch.channels_last), label, None, [])
        for image in (source, target)
    )

    def step() -> None:
        zero_gradients(optimizers)
        method.step(source_batch, target_batch)
        update(optimizers, scaler)

    return step


def new_sgd(model: torch.nn.Module) -> torch.optim.SGD:
    """SGD as in the paper."""
    return torch.optim.SGD(model.parameters(), 5e-4, momentum=0.9, weight_decay=5e-4)


def sides_on(device: torch.device) -> tuple[str, ...]:
    """The reference, ours in fp32, and ours in bf16 on hardware that has it."""
    has_bf16 = choose_precision("auto", device) == "bf16"
    return ("baseline", "fp32", "bf16") if has_bf16 else ("baseline", "fp32")


def measure(
    side: str, backbone: str, batch_size: int, size: tuple[int, int], steps: int, device_name: str
) -> tuple[float, float]:
    """Seconds of the fastest of ``steps`` iterations, and peak memory in MiB without the imports.

    Runs in its own process.
    """
    device = choose_device(device_name)
    before = _memory_mib("VmRSS")
    step = iteration(side, backbone, batch_size, size, device)
    seconds = []
    for _ in range(1 + steps):
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    if device.type == "cuda":
        return min(seconds[1:]), torch.cuda.max_memory_allocated() / 2**20
    return min(seconds[1:]), _memory_mib("VmHWM") - before


def _memory_mib(name: str) -> float:
    """A memory of this process in MiB: resident now (VmRSS), or at its peak (VmHWM).

    Raises OSError where the system is not Linux.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise OSError(
            "scripts.benchmark train measures memory with /proc/self/status, which this system"
            " does not have. Run it on Linux, or on Windows in WSL."
        ) from error
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def run(args) -> None:
    context = multiprocessing.get_context("spawn")
    sides = sides_on(choose_device(args.device))
    if "bf16" not in sides:
        print("bf16 is left out: this hardware has no instructions for it.", flush=True)

    def in_own_process(side: str, size: tuple[int, int], steps: int) -> tuple[float, float]:
        with context.Pool(1) as pool:
            return pool.apply(
                measure, (side, args.backbone, args.batch_size, tuple(size), steps, args.device)
            )

    seconds = {side: [] for side in sides}
    for number in range(args.rounds):
        for side in sides:
            seconds[side].append(in_own_process(side, args.crop_size, args.steps)[0])
            print(f"round {number + 1}, {side}: {seconds[side][-1]:.2f} s an iteration", flush=True)
    memory = {side: in_own_process(side, args.memory_size, 1)[1] for side in sides}

    medians = {side: statistics.median(values) for side, values in seconds.items()}
    faster = {side: medians["baseline"] / medians[side] for side in sides}
    smaller = {side: memory["baseline"] / memory[side] for side in sides}
    ratios = {
        "ratio_time_bf16": faster.get("bf16"),
        "ratio_time_fp32": faster["fp32"],
        "ratio_memory": smaller.get("bf16"),
        "ratio_memory_fp32": smaller["fp32"],
    }
    rows = [
        [side, f"{medians[side]:.2f}", f"{faster[side]:.2f}", f"{memory[side]:.0f}"]
        for side in sides
    ]
    height, width = args.memory_size
    header = ["adversarial iteration", "s", "times faster", f"peak MiB at {height}x{width}"]
    print(markdown_table(header, rows))
    if args.json:
        figures = {"seconds": seconds, "peak_mib": memory, "backbone": args.backbone}
        figures |= {"batch_size": args.batch_size, "crop_size": list(args.crop_size)}
        figures |= {"memory_size": list(args.memory_size)}
        write_json(args.json, ratios | figures | environment())
