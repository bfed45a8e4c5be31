"""Training speed and memory of one side, ours or the baseline's, in its own process.

python -m scripts.check_gpu.side '{"side": "ours bf16", ...}' OUTPUT.json
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from model.discriminator import build_discriminator
from scripts import baselines
from scripts.check_gpu import ours
from utils.benchmark.memory import PeakMemory
from utils.files import write_json
from utils.training.precision import choose_precision

WARM_UP = 3
WINDOWS = 3
"""The time of an iteration is the median over so many windows of iterations."""


class ScaledStep:
    """An optimizer whose ``step()`` goes through a GradScaler."""

    def __init__(self, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler):
        self.optimizer, self.scaler = optimizer, scaler

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def step(self) -> None:
        self.scaler.step(self.optimizer)


@contextlib.contextmanager
def scaled_backward(scaler: torch.amp.GradScaler) -> Iterator[None]:
    """Every ``loss.backward()`` inside sends back the scaled loss."""
    backward = Tensor.backward
    with mock.patch.object(Tensor, "backward", lambda loss: backward(scaler.scale(loss))):
        yield


def baseline_step(setup: ours.Setup) -> Callable[[], object]:
    """One iteration of the reference implementation; fp16 is wrapped around it from outside."""
    torch.manual_seed(0)
    model = baselines.BaselineBiSeNet(ours.NUM_CLASSES, setup.backbone).to(setup.device).train()
    light = setup.method == "light"
    discriminator = (
        baselines.baseline_discriminator()
        if light
        else build_discriminator(setup.method, ours.NUM_CLASSES)
    )
    discriminator.to(setup.device)
    sgd = torch.optim.SGD(model.parameters(), 5e-4, momentum=0.9, weight_decay=5e-4)
    adam = torch.optim.Adam(discriminator.parameters(), 1e-5, betas=(0.9, 0.99))
    batch = ours.synthetic_batch(setup.size)
    images = [
        batch.source.to(setup.device),
        batch.label.long().to(setup.device),
        batch.target.to(setup.device),
    ]
    if setup.precision == "fp32":
        return lambda: baselines.adversarial_iteration(model, discriminator, sgd, adam, *images)
    scaler = torch.amp.GradScaler(setup.device.type)
    optimizers = ScaledStep(sgd, scaler), ScaledStep(adam, scaler)

    def step() -> None:
        with torch.autocast(setup.device.type, torch.float16), scaled_backward(scaler):
            baselines.adversarial_iteration(model, discriminator, *optimizers, *images)
        scaler.update()

    return step


def our_step(setup: ours.Setup) -> Callable[[], object]:
    """One iteration of ours, optimizers included."""
    step = ours.training_step(setup)

    def iteration() -> None:
        step.gradients()
        step.update()

    return iteration


def measure(step: Callable[[], object], device: torch.device, seconds: float) -> dict[str, float]:
    """Iterations a second over about ``seconds``; the device is waited for between windows."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def timed(iterations: int) -> float:
        wait()
        start = time.perf_counter()
        for _ in range(iterations):
            step()
        wait()
        return (time.perf_counter() - start) / iterations

    once = timed(1)
    iterations = max(1, round(seconds / WINDOWS / once))
    windows = sorted(timed(iterations) for _ in range(WINDOWS))
    middle = windows[WINDOWS // 2]
    return {
        "iterations_per_second": 1 / middle,
        "iteration_ms": 1000 * middle,
        "spread_ms": 1000 * (windows[-1] - windows[0]),
    }


def main(job: dict) -> dict:
    device = torch.device(job["device"])
    who, precision = job["side"].split()
    setup = ours.Setup(job["method"], tuple(job["size"]), device, precision, job["backbone"])
    # The reference implementation as it stands lets torch choose TF32; ours turns it off.
    if who == "ours":
        choose_precision(precision, device)
    try:
        with PeakMemory(device) as peak:
            step = (our_step if who == "ours" else baseline_step)(setup)
            for _ in range(WARM_UP):
                step()
        return {"peak_memory_mb": peak.bytes / 1e6} | measure(step, device, job["seconds"])
    except torch.OutOfMemoryError:
        return {"out_of_memory": True}


if __name__ == "__main__":
    write_json(Path(sys.argv[2]), main(json.loads(sys.argv[1])))
