"""A process that runs some checks in turn and writes each finding at once.

python -m scripts.check_gpu.worker JOB.json
"""

import gc
import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path

# Before CUDA is initialized: without it cuBLAS has no deterministic algorithms.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch

from scripts.check_gpu.plan import Broken, Check, Context, Finding, NotHere
from scripts.check_gpu.record import Record


def outcome(check: Check, context: Context) -> tuple[str, Finding]:
    """Runs ``check``: its status, and its finding or the reason for having none."""
    try:
        finding = check.run(context)
        return ("passed" if check.step == "laws" else "measured"), finding
    except NotHere as reason:
        return "not here", Finding(str(reason))
    except Broken as broken:
        traceback.print_exc()
        return "FAILED", Finding(str(broken))
    except Exception as error:  # whatever a check meets is its finding, and the next one runs
        traceback.print_exc()
        return "FAILED", Finding(
            f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"[
                :300
            ]
        )


def reset() -> None:
    """Leaves nothing of a check to the next: memory, and settings of torch."""
    gc.collect()
    torch.use_deterministic_algorithms(False)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def seconds_for(check: Check, job: dict) -> float:
    """How long ``check`` may take: its share where it fills its time, else all that is left."""
    until = job["until" if check.fills else "deadline"]
    return max(0.0, min(check.limit_s, until - time.time()))


def main(job: dict) -> None:
    record = Record(Path(job["folder"]), job["about"], job["source"])
    catalogue = importlib.import_module(job["catalogue"])
    roots = [Path(job[name]) if job[name] else None for name in ("gta5", "cityscapes")]
    for key in job["checks"]:
        check = catalogue.find(key)
        device = torch.device(job["about"]["device"])
        context = Context(
            device,
            Path(job["folder"]) / "work",
            device.type == "cpu",
            seconds_for(check, job),
            *roots,
        )
        print(f"--- {key}", flush=True)
        start = time.perf_counter()
        status, finding = outcome(check, context)
        record.write(check, status, finding.text, finding.figures, time.perf_counter() - start)
        reset()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
