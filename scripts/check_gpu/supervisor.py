"""Runs checks in processes of their own: a crash or a hang costs one finding."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from scripts.check_gpu.doors import ROOT
from scripts.check_gpu.plan import CORE_SHARE, RESTART, Check
from scripts.check_gpu.record import Record

START_S = 30
"""What a process may take to start, beside the limit of its first check."""
LEAST_S = 3
"""With less time left no check is begun."""
NO_TIME = "no time left"
"""Why a check has no finding, and waits for the next run."""
NOT_BEGUN = "the process ended before it began"
"""Why a check has no finding after one that left CUDA unusable: a fresh process runs it."""


class Supervisor:
    """Runs checks for ``record`` and calls ``show(finding)`` after each.

    ``paths``: "gta5" and "cityscapes" of the real data, and "work" for the checks' own files, each
    a folder or None. ``catalogue``: the module that finds a check by its key.
    """

    def __init__(
        self,
        record: Record,
        show: Callable[[dict], None],
        paths: dict[str, str | None],
        catalogue: str = "scripts.check_gpu.catalogue",
    ):
        self.record, self.show, self.catalogue = record, show, catalogue
        self.paths = paths | {"work": paths["work"] or str(record.folder / "work")}
        self.process: subprocess.Popen | None = None

    def run(self, checks: list[Check], begin_until: float, deadline: float) -> list[Check]:
        """Runs ``checks`` in order; returns those that have no finding.

        None begins after ``begin_until``, and none goes on after ``deadline`` (of time.time()). One
        that fills its time is given the time until ``begin_until``.
        """
        waiting, begin_until = list(checks), min(begin_until, deadline - LEAST_S)
        while waiting and time.time() < min(begin_until, deadline - self._least(waiting[0])):
            together = [waiting[0]]
            if not waiting[0].alone:
                step = waiting[0].step
                together = [check for check in waiting if check.step == step and not check.alone]
            finished = self._run_together(together, begin_until, deadline)
            waiting = [check for check in waiting if check not in finished]
            if not finished:
                break
        return waiting

    def _least(self, check: Check) -> float:
        """With fewer seconds left ``check`` is not begun."""
        return check.least_s if self.record.about["device"] == "cuda" else 0

    def _run_together(
        self, checks: list[Check], begin_until: float, deadline: float
    ) -> list[Check]:
        """Runs ``checks`` in one process until it ends, one must be stopped, or none may begin."""
        for check in checks:
            self.record.path(check).unlink(missing_ok=True)
        log = self.record.folder / "logs" / f"{checks[0].step}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        self._start([check.key for check in checks], begin_until, deadline, log)
        begun, finished, start_s = time.time(), [], START_S
        for check in checks:
            if begun >= begin_until:
                break
            why = self._wait(check, begun + start_s + check.limit_s, deadline)
            if why == NO_TIME or (why == NOT_BEGUN and finished):
                break
            if why is not None:
                self.stop()
                text = f"{why}; see {log.relative_to(self.record.folder)}"
                self.record.write(check, "STOPPED", text, {}, time.time() - begun)
            self.show(self.record.read(check))
            finished.append(check)
            if why is not None:
                break
            begun, start_s = time.time(), 0
        self.stop()
        return finished

    def _start(self, keys: list[str], until: float, deadline: float, log: Path) -> None:
        job = self.record.folder / "job.json"
        content = {
            "folder": str(self.record.folder),
            "about": self.record.about,
            # The digest of now: a file that changes during the run changes nothing.
            "source": self.record.identity["source"],
            "catalogue": self.catalogue,
            "checks": keys,
            "until": until,
            "deadline": deadline,
        }
        job.write_text(json.dumps(content | self.paths), encoding="utf-8")
        with open(log, "a", encoding="utf-8") as file:
            command = [sys.executable, "-m", "scripts.check_gpu.worker", str(job)]
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdout=file, stderr=file, start_new_session=True
            )

    def _wait(self, check: Check, limit: float, deadline: float) -> str | None:
        """Waits for the finding of ``check`` until ``limit`` or ``deadline`` (of time.time()).

        Returns None when the finding is there, else why there is none.
        """
        path = self.record.path(check)
        while time.time() < min(limit, deadline):
            ended = self.process.poll() is not None  # asked first: the finding may come in between
            if path.exists():
                return None
            if ended:
                code = self.process.returncode
                if code == RESTART:
                    return NOT_BEGUN
                how = signal.Signals(-code).name if code < 0 else f"status {code}"
                return f"the process ended with {how}"
            time.sleep(0.05)
        return NO_TIME if deadline <= limit else f"stopped after its limit of {check.limit_s:.0f} s"

    def stop(self) -> None:
        """Ends the process and all that it started."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        if self.process.poll() is None:  # it may not have had its own group yet
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None


def run_by_worth(supervisor: Supervisor, checks: list[Check], minutes: float) -> list[Check]:
    """The core of every step first, each within its share of the time; then what is missing of the
    core, then all others.

    Returns those without a finding.
    """
    deadline, waiting = time.time() + 60 * minutes, []
    shares = CORE_SHARE[supervisor.record.about["device"]]
    steps = list(dict.fromkeys(check.step for check in checks))
    whole = sum(shares[step] for step in steps)
    for number, step in enumerate(steps):
        # What an earlier step took beyond its share is missing to all later ones alike.
        now, left = time.time(), sum(shares[each] for each in steps[number:])
        until = now + (deadline - now) * shares[step] / left
        core = [check for check in checks if check.step == step and check.core]
        if any(check.fills for check in core):
            # What earlier steps left is not for it: the checks outside the core come after it.
            until = min(until, now + 60 * minutes * shares[step] / whole)
        waiting += supervisor.run(core, until, deadline)
    late = supervisor.run([check for check in waiting if not check.fills], deadline, deadline)
    others = late + [check for check in checks if not check.core]
    others += [check for check in waiting if check.fills]
    return supervisor.run(others, deadline, deadline)
