"""A process that runs some checks in turn and writes each finding at once.

python -m scripts.check_gpu.worker JOB.json
"""

import gc
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

# Before CUDA is initialized: without it cuBLAS has no deterministic algorithms.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch

from scripts.check_gpu.plan import (
    RESTART,
    Broken,
    Check,
    Context,
    Finding,
    NotHere,
)
from scripts.check_gpu.record import Record


def wait_for_gpu() -> None:
    """Waits for all that was started on the GPU: errors of kernels appear here at the latest."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def outcome(check: Check, context: Context) -> tuple[str, Finding]:
    """Runs ``check``: its status, and its finding or the reason for having none."""
    try:
        finding = check.run(context)
        wait_for_gpu()
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


def reset() -> bool:
    """Leaves nothing of a check to the next: memory, and settings of torch. Returns False where
    that fails: after an illegal address or a failed assertion every call of CUDA does.
    """
    try:
        gc.collect()
        torch.use_deterministic_algorithms(False)
        wait_for_gpu()
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.set_sync_debug_mode("default")
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    except RuntimeError:
        traceback.print_exc()
        return False
    return True


def end_with_parent(parent: int) -> None:
    """Ends this process and all that it started when the process ``parent``, which started it, is
    gone, so that the next call does not measure beside it.
    """
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(os.getpgrp(), signal.SIGKILL)


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
            Path(job["work"]),
            device.type == "cpu",
            seconds_for(check, job),
            *roots,
        )
        print(f"--- {key}", flush=True)
        start = time.perf_counter()
        status, finding = outcome(check, context)
        record.write(check, status, finding.text, finding.figures, time.perf_counter() - start)
        if not reset():
            print("a fresh process goes on", flush=True)
            os._exit(RESTART)  # what CUDA does at a regular end may hang


if __name__ == "__main__":
    if os.getpgrp() == os.getpid():  # its own group, as the supervisor starts it
        threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
