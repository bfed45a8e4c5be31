"""Device and arithmetic of a run, chosen once before the loop."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str) -> torch.device:
    """ "auto" takes CUDA where there is one. Raises ValueError for "cuda" without CUDA."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "--device cuda was asked for, but torch sees no CUDA device. Check nvidia-smi and that"
            " torch is a CUDA build, or use --device cpu."
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> str:
    """ "auto" -> bf16 on hardware that has it, else fp16 on CUDA and fp32 on a CPU.

    Every script chooses its precision here. On CUDA this also turns TF32 off, so that fp32 is
    float32: bf16 is there for speed. Raises ValueError for fp16 on a CPU.
    """
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if name == "fp16" and device.type == "cpu":
        raise ValueError("--precision fp16 needs CUDA; on a CPU use bf16 or fp32.")
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if _cpu_has_bf16() else "fp32"


def _cpu_has_bf16() -> bool:
    """Whether the processor has bf16 instructions (AVX-512 BF16, AMX, Arm BF16). Where Linux does
    not tell, the answer is no.
    """
    try:
        words = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(words)


def autocast_for(device: torch.device, precision: str) -> Callable[[], AbstractContextManager]:
    """A function that opens autocast in ``precision``; for fp32 a disabled one."""
    enabled = precision != "fp32"
    return functools.partial(
        torch.autocast,
        device.type,
        dtype=PRECISIONS[precision] if enabled else None,
        enabled=enabled,
    )


def scaler_for(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """fp16 needs its gradients scaled; elsewhere the scaler is disabled and passes everything
    through.
    """
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def describe_precision(device: torch.device, precision: str) -> str:
    """Device and precision in words. TF32 is off since ``choose_precision``."""
    if device.type != "cuda":
        return f"{device}, {precision}"
    return f"{device} ({torch.cuda.get_device_name(device)}), {precision}, TF32 off"
