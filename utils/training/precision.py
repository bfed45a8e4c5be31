"""Device and precision of a run, chosen once before the loop."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto": CUDA if there is a GPU. Raises ValueError without CUDA.

    Every script chooses its device here. On CUDA this also turns TF32 off, so that fp32 is float32:
    bf16 is there for speed.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "--device cuda was asked for, but torch sees no CUDA device. Check nvidia-smi and that"
            " torch is a CUDA build, or use --device cpu."
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    _turn_tf32_off(device)
    return device


def _turn_tf32_off(device: torch.device) -> None:
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def choose_precision(name: str, device: torch.device) -> str:
    """The precision of that name; "auto": bf16 if the hardware has it, else fp16 or fp32 (CPU).

    Turns TF32 off like ``choose_device``. Raises ValueError for fp16 on a CPU.
    """
    _turn_tf32_off(device)
    if name == "fp16" and device.type == "cpu":
        raise ValueError("--precision fp16 needs CUDA; on a CPU use bf16 or fp32.")
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if _cpu_has_bf16() else "fp32"


def _cpu_has_bf16() -> bool:
    """Whether Linux reports bf16 instructions of the processor (AVX-512 BF16, AMX, Arm BF16)."""
    try:
        words = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(words)


def autocast_for(device: torch.device, precision: str) -> Callable[[], AbstractContextManager]:
    """Function that opens autocast in ``precision``; disabled for fp32."""
    enabled = precision != "fp32"
    dtype = PRECISIONS[precision] if enabled else None
    return functools.partial(torch.autocast, device.type, dtype=dtype, enabled=enabled)


def scaler_for(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """The scaler that the gradients of fp16 need; disabled for other precisions."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def describe_precision(device: torch.device, precision: str) -> str:
    """Device and precision in words. TF32 is off since ``choose_device``."""
    if device.type != "cuda":
        return f"{device}, {precision}"
    return f"{device} ({torch.cuda.get_device_name(device)}), {precision}, TF32 off"
