"""Where and with what a run happens: git revision, versions, hardware."""

import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch


def environment() -> dict[str, Any]:
    """Where and with what a run happens: git revision, versions, hardware."""
    return {
        "git": _git_revision(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cpu": processor(),
        "cpu_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def processor() -> str:
    """The processor's name, as Linux tells it; elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )


def _git_revision() -> str:
    """The commit, with "+changes" when the working tree differs from it; "unknown" outside a git
    checkout of ours: a copy inside another repository has not that one's commit.
    """
    here = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        text = {"encoding": "utf-8", "errors": "surrogateescape"}
        command = ["git", *words]
        return subprocess.run(command, cwd=here, capture_output=True, check=True, **text).stdout

    try:
        if Path(git("rev-parse", "--show-toplevel").strip()).resolve() != here:
            return "unknown"
        commit = git("rev-parse", "HEAD").strip()
        changes = git("status", "--porcelain", "-uno")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+changes" if changes else "")
