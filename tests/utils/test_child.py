"""A signal reaches the child, which ends in its own time."""

import os
import signal
import subprocess
import sys

import pytest

from utils.child import run_child

CHILD = """
import signal, sys, time
from utils.training.signals import StopRequest
with StopRequest() as stop:
    print("ready", flush=True)
    while not stop:
        time.sleep(0.01)
    time.sleep(0.6)  # saves
    print("saved", flush=True)
"""
PARENT = (
    "import sys; from utils.child import run_child;"
    f"print(run_child([sys.executable, '-c', {CHILD!r}]))"
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("to_all", [True, False])
def test_a_signal_lets_the_child_save(number, to_all):
    """To the parent alone, or to both as from a terminal: the child saves, the parent waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "ready\n"
    (os.killpg if to_all else os.kill)(process.pid, number)
    output, _ = process.communicate(timeout=30)
    assert "saved" in output
    assert f"(0, '{number.name}')" in output


def test_without_a_signal_the_status_is_the_childs():
    assert run_child([sys.executable, "-c", "raise SystemExit(3)"]) == (3, None)
