"""The GPU, its driver and the versions in use; and what to do where there is no usable GPU."""

import importlib.metadata
import multiprocessing
import os
import platform
import shutil
import subprocess
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from utils.training.environment import environment

PACKAGES = (
    "torchvision",
    "opencv-python-headless",
    "opencv-python",
    "pillow",
    "tqdm",
    "tensorboard",
    "triton",
    "ptflops",
    "pytest",
    "onnxruntime",
    "onnxruntime-gpu",
)
CROWDED = 0.1
"""Fraction of the GPU's memory in use by others from which on figures are doubted."""


def query_driver(what: str = "driver_version") -> str | None:
    """A property of the first GPU as nvidia-smi tells it; None without nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (
        answer.stdout.strip().splitlines()[0]
        if answer.returncode == 0 and answer.stdout.strip()
        else None
    )


def why_no_cuda() -> str | None:
    """None where CUDA can be used; else an error message with the remedy."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
        if usable:
            try:
                torch.zeros(1, device="cuda").item()
                return None
            except RuntimeError as error:
                said = [warnings.WarningMessage(str(error), RuntimeWarning, "", 0)]
    reason = " ".join(str(warning.message).split("\n")[0] for warning in said)
    return explain(
        torch.__version__, torch.version.cuda or torch.version.hip, query_driver(), reason
    )


def explain(torch_version: str, built_for: str | None, driver: str | None, reason: str = "") -> str:
    """Why torch cannot use CUDA, and what to do.

    ``built_for``: the CUDA version of the torch build, None for a CPU build.

    ``driver``: the version that nvidia-smi tells, None without one. ``reason``: what torch said
    about it.
    """
    anyway = "To see the checks work without a GPU, at a small size: add --device cpu."
    choose = (
        "Choose the command for your system at https://pytorch.org/get-started/locally/, such as"
    )
    install = (
        f"{choose} pip install torch torchvision --index-url https://download.pytorch.org/whl/cu126"
    )
    if built_for is None:
        found = f"torch {torch_version} is a build for CPUs; expected one with CUDA"
        return f"{found}. {install}. {anyway}"
    found = f"torch {torch_version}, built for CUDA {built_for}, cannot use a GPU"
    if driver is None:
        return (
            f"{found}: nvidia-smi is not there or finds no driver. Install NVIDIA's driver, "
            f"or in a container give it the GPU (docker run --gpus all). {anyway}"
        )
    if "too old" in reason or "insufficient" in reason:
        return (
            f"{found}: the driver {driver} is too old for it ({reason}). "
            "Update the driver, or install a torch for an older CUDA. "
            f"{install.replace('cu126', 'cu118')}. {anyway}"
        )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    hint = (
        f"CUDA_VISIBLE_DEVICES is {hidden!r}: it may hide the GPU. " if hidden is not None else ""
    )
    said = f" torch says: {reason}." if reason else ""
    found += f", though there is the driver {driver}.{said}"
    return f"{found} {hint}Does nvidia-smi show a free GPU? {anyway}"


def describe(device: torch.device) -> dict[str, Any]:
    """Hardware, driver, versions and git revision, as plain values."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    about = {
        **environment(),
        "versions": versions,
        "platform": platform.platform(),
        "cpu_cores": os.cpu_count(),
    }
    if device.type != "cuda":
        return about | {"device": "cpu", "gpu": None}
    properties = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    return about | {
        "device": "cuda",
        "gpus": torch.cuda.device_count(),
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gb": total / 1e9,
        "memory_free_at_start_gb": free / 1e9,
        "driver": query_driver(),
        "power_limit_w": query_driver("power.limit"),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "bf16": torch.cuda.is_bf16_supported(including_emulation=False),
    }


def examine() -> tuple[str | None, dict[str, Any] | None]:
    """Why the GPU cannot be used, or the machine with its GPU."""
    problem = why_no_cuda()
    return problem, None if problem else describe(torch.device("cuda"))


def in_a_child(ask: Callable[[], Any]) -> Any:
    """What ``ask()`` returns in a forked process.

    So this process does not use CUDA: it would hold memory of the GPU, and in the compute mode
    EXCLUSIVE_PROCESS it would keep all others from using it.
    """
    context = multiprocessing.get_context("fork")
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(ask).result()
    except BrokenProcessPool as error:
        raise ValueError(
            "Asking the driver about the GPU ended the process that asked. "
            "Does nvidia-smi work? To see the checks work without a GPU: add --device cpu."
        ) from error


def headline(about: dict[str, Any]) -> str:
    """The machine in a line or two, with a warning where others use the GPU."""
    if about["device"] == "cpu":
        small = "Sizes are small; no figure says anything about a GPU."
        return f"CPU: {about['cpu']}, torch {about['torch']}. {small}"
    total, free = about["memory_gb"], about["memory_free_at_start_gb"]
    used = total - free
    text = f"{about['gpu']}, {total:.0f} GB, driver {about['driver']}, CUDA {about['cuda']}, "
    text += f"torch {about['torch']}. In use at the start: {used:.1f} GB."
    if used > CROWDED * total:
        text += "\nWARNING: others use this GPU (see nvidia-smi): times may be too long, "
        text += "and memory may not suffice."
    return text


def left_out(about: dict[str, Any]) -> list[str]:
    """What cannot be checked because optional packages are missing."""
    uses = {
        "ptflops": "the MACs in eval.py's Table II",
        "pytest": "pytest -m cuda, the same laws as tests",
        "onnxruntime": "ONNX files",
    }
    versions = about["versions"]
    return [
        f"{package} is not installed: left out are {use}"
        for package, use in uses.items()
        if package not in versions and f"{package}-gpu" not in versions
    ]
