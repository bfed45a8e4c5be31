"""What is done with a trained network: scored, used, exported, recalibrated; several GPUs."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules._functions import SyncBatchNorm

from scripts import baselines
from scripts.check_gpu import ours
from scripts.check_gpu.doors import (
    METHOD_FLAGS,
    ROOT,
    flags,
    relative_difference,
    require_success,
    run_process,
    run_successfully,
    streets,
    train,
    trained_checkpoint,
    training_flags,
)
from scripts.check_gpu.plan import Broken, Check, Context, Finding, expect_at_most, require_gpu
from scripts.check_gpu.reference import baseline_network, relative_error
from utils.training.checkpoint import read_checkpoint

PIXELS_TOLERANCE = 1e-4
"""Fraction of the pixels with another class: two classes may be a rounding error apart."""


def evaluation_equals_the_cpus(context: Context) -> Finding:
    """eval.py's confusion matrix in float32 is the CPU's (on a CPU: the baseline's) to 1e-4."""
    checkpoint, data = trained_checkpoint(context), streets(context)
    found = torch.tensor(_scores(context, checkpoint, context.device.type)["matrix"])
    if context.on_gpu:
        if torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32:
            raise Broken("eval.py --precision fp32 left TF32 on; expected it off")
        expected = torch.tensor(_scores(context, checkpoint, "cpu")["matrix"])
    else:
        expected = _baseline_matrix(checkpoint, data / "cityscapes")
    moved = float((found - expected).abs().sum() / 2 / expected.sum())
    text = expect_at_most(moved, PIXELS_TOLERANCE, "fraction of pixels moved") + (
        ", TF32 off" if context.on_gpu else ""
    )
    return Finding(text, {"fraction_of_pixels_moved": moved})


def _scores(context: Context, checkpoint: Path, device: str) -> dict:
    """What eval.py writes about the checkpoint as JSON."""
    output = context.folder / f"scores-{device}.json"
    run_successfully("eval.py", checkpoint, *_target_flags(context, device), "--json", output)
    return json.loads(output.read_text(encoding="utf-8"))["rows"][0]


def _target_flags(context: Context, device: str) -> list[str]:
    """Flags of scripts that read the streets of the target, in float32 on ``device``."""
    target = streets(context) / "cityscapes"
    return flags({"cityscapes": target, "device": device, "precision": "fp32", "workers": 0})


def _baseline_matrix(checkpoint: Path, root: Path) -> torch.Tensor:
    """Confusion matrix of the reference implementation with the checkpoint's weights."""
    content = read_checkpoint(checkpoint)
    model = ours.build_network(content["architecture"]["backbone"])
    model.load_state_dict(content["parts"]["model"])
    images = sorted((root / "leftImg8bit/val").rglob("*.png"))
    pairs = [
        (
            path,
            Path(
                str(path)
                .replace("leftImg8bit/", "gtFine/")
                .replace("_leftImg8bit.png", "_gtFine_labelIds.png")
            ),
        )
        for path in images
    ]
    return torch.from_numpy(baselines.evaluate(baseline_network(model), pairs))


def _class_maps(context: Context, model: Path, device: str, name: str) -> list[np.ndarray]:
    """The trainIds that scripts.predict writes for the streets of val, (H, W) uint8 each."""
    output = context.folder / "predicted" / name
    shutil.rmtree(output, ignore_errors=True)
    images = streets(context) / "cityscapes/leftImg8bit/val"
    settings = {"model": model, "output": output, "save": "trainIds", "device": device}
    settings |= {"precision": "fp32"} if model.suffix == ".pt" else {}
    run_successfully("scripts.predict", images, *flags(settings))
    maps = [np.array(Image.open(path)) for path in sorted(output.rglob("*.png"))]
    if not maps:
        raise Broken(f"scripts.predict wrote no picture into {output}")
    return maps


def _moved(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """The fraction of pixels with another class."""
    return float(np.mean([(a != b).mean() for a, b in zip(found, expected, strict=True)]))


def prediction_and_export_agree(context: Context) -> Finding:
    """scripts.predict, and an exported program, give the class maps of the CPU."""
    checkpoint, device = trained_checkpoint(context), context.device.type
    expected = _class_maps(context, checkpoint, "cpu", "cpu")
    predicted = _moved(_class_maps(context, checkpoint, device, device), expected)
    program = context.folder / "network.pt2"
    program.unlink(missing_ok=True)
    run_successfully("scripts.export", checkpoint, "--format", "torch", "--output", program)
    exported = _moved(_class_maps(context, program, device, f"program-{device}"), expected)
    text = expect_at_most(predicted, PIXELS_TOLERANCE, "pixels moved: predict") + "; "
    text += expect_at_most(exported, PIXELS_TOLERANCE, "exported")
    return Finding(text, {"fraction_moved_predict": predicted, "fraction_moved_exported": exported})


def recalibration_agrees(context: Context) -> Finding:
    """scripts.recalibrate on the device finds the statistics that the CPU finds, to 1e-4."""
    require_gpu(context)
    checkpoint, written = trained_checkpoint(context), []
    for device in ("cpu", context.device.type):
        written.append(context.folder / f"adabn-{device}.pt")
        written[-1].unlink(missing_ok=True)
        more = _target_flags(context, device)
        run_successfully("scripts.recalibrate", checkpoint, *more, "--output", written[-1])
    difference = relative_difference(written[1], written[0])
    return Finding(
        expect_at_most(difference, 1e-4, "relative difference"), {"relative_difference": difference}
    )


def pseudo_labels_agree(context: Context) -> Finding:
    """scripts.make_pseudo_labels writes on the device the labels of the CPU up to 1e-3 of the
    pixels (a threshold is a kink), and train_da.py learns from them.
    """
    checkpoint, maps = trained_checkpoint(context), {}
    for device in dict.fromkeys(("cpu", context.device.type)):
        output = context.folder / f"pseudo-{device}"
        shutil.rmtree(output, ignore_errors=True)
        more = _target_flags(context, device)
        run_successfully("scripts.make_pseudo_labels", checkpoint, *more, "--output", output)
        maps[device] = [
            np.array(Image.open(path)) for path in sorted(output.rglob("*labelIds.png"))
        ]
    moved = _moved(maps[context.device.type], maps["cpu"])
    text = expect_at_most(moved, 1e-3, "pixels moved")
    train(
        context,
        "pseudo-labels",
        2,
        "--method",
        "pseudo-labels",
        "--pseudo-labels",
        str(context.folder / f"pseudo-{context.device.type}"),
    )
    return Finding(text, {"fraction_of_pixels_moved": moved})


def prepares_beside_training(context: Context) -> Finding:
    """scripts.prepare works while train_da.py trains, and its data trains a finite network."""
    data, prepared = streets(context), context.folder / "prepared"
    shutil.rmtree(prepared, ignore_errors=True)
    settings = {"gta5": data / "gta5", "output": prepared, "workers": 2}
    beside = subprocess.Popen(
        [sys.executable, "-m", "scripts.prepare", *flags(settings)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    try:
        train(context, "beside-prepare", 4, *METHOD_FLAGS["light LAB"])
        said = beside.communicate(timeout=context.seconds)[0]
    finally:
        beside.kill()
    require_success("scripts.prepare", beside.returncode, said)
    checkpoint = train(context, "prepared", 2, *METHOD_FLAGS["light LAB"], "--gta5", str(prepared))
    if not all(
        value.isfinite().all() for value in read_checkpoint(checkpoint)["parts"]["model"].values()
    ):
        raise Broken("weights trained on the prepared data are not finite")
    return Finding("prepared while training, then trained on")


BatchNorm = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""(images, weight, bias, running mean, running variance) -> normalized images; it moves the running
statistics.
"""


def plain_batch_norm(images: Tensor, weight: Tensor, bias: Tensor, *running: Tensor) -> Tensor:
    """What every BatchNorm must give in one process."""
    return nn.functional.batch_norm(images, *running, weight, bias, training=True)


def synchronized_batch_norm(
    images: Tensor, weight: Tensor, bias: Tensor, *running: Tensor
) -> Tensor:
    """SyncBatchNorm with its own kernels and collectives, in a group of one: the module itself
    would use F.batch_norm there.
    """
    group = dist.group.WORLD
    return SyncBatchNorm.apply(images, weight, bias, *running, 1e-5, 0.1, group, 1)


def batch_norm_error(found: BatchNorm, device: torch.device) -> float:
    """The largest relative error of ``found`` against F.batch_norm: outputs, statistics, and the
    gradients of images, weight and bias.
    """
    generator = torch.Generator().manual_seed(0)
    images, upstream = torch.randn(2, 4, 16, 12, 20, generator=generator)
    weight, bias = torch.randn(2, 16, generator=generator)
    results = []
    for batch_norm in (found, plain_batch_norm):
        values = [value.clone().to(device).requires_grad_() for value in (images, weight, bias)]
        running = torch.zeros(16, device=device), torch.ones(16, device=device)
        normalized = batch_norm(
            values[0].contiguous(memory_format=torch.channels_last), *values[1:], *running
        )
        gradients = torch.autograd.grad(normalized, values, upstream.to(device))
        results.append([normalized.detach(), *running, *gradients])
    return max(
        relative_error(*(value.double().cpu().flatten() for value in pair))
        for pair in zip(*results, strict=True)
    )


def one_process_of_nccl(context: Context) -> Finding:
    """In a group of one, NCCL's sum leaves a tensor as it is and SyncBatchNorm gives BatchNorm's
    outputs and gradients to 1e-4; two processes train with --bn sync where there are two GPUs.
    """
    require_gpu(context)
    dist.init_process_group("cpu:gloo,cuda:nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        values = torch.arange(1000.0, device=context.device)
        total = values.clone()
        dist.all_reduce(total)
        if not torch.equal(total, values):
            raise Broken("NCCL's sum over one process changed the values")
        error = batch_norm_error(synchronized_batch_norm, context.device)
    finally:
        dist.destroy_process_group()
    text = expect_at_most(error, 1e-4, "relative error of SyncBatchNorm")
    train(context, "sync", 2, *METHOD_FLAGS["light LAB"], "--bn", "sync")
    if torch.cuda.device_count() < 2:
        return Finding(text + "; two processes: needs two GPUs", {"relative_error": error})
    difference = _difference_of_two_processes(context)
    text += "; " + expect_at_most(difference, 1e-2, "two processes differ by")
    return Finding(text, {"relative_error": error, "two_processes_relative_difference": difference})


def _difference_of_two_processes(context: Context) -> float:
    """Relative difference of two processes' weights from those of one. Raises Broken."""
    folder = context.folder / "runs"
    (folder / "two/last.pt").unlink(missing_ok=True)
    settings = [*training_flags(context), *METHOD_FLAGS["light LAB"], "--bn", "sync"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launch, "train_da.py", *settings, "--name", "two", "--max-steps", "2"]
    run_process("two processes", command, context.seconds)
    return relative_difference(folder / "two/last.pt", folder / "sync/last.pt")


CHECKS = (
    Check("laws", "eval.py equals the CPU's", evaluation_equals_the_cpus),
    Check("laws", "predict and export", prediction_and_export_agree, limit_s=90),
    Check("laws", "NCCL and --bn sync", one_process_of_nccl, limit_s=90),
    Check("laws", "recalibrate", recalibration_agrees, core=False),
    Check("laws", "make_pseudo_labels", pseudo_labels_agree, core=False),
    Check("laws", "prepare beside training", prepares_beside_training, core=False),
)
