"""scripts/demo.sh hands signals on: the running command saves, and the demo ends with it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "scripts/demo.sh"
CHILD = (
    "import signal, time; stop = []; signal.signal(signal.SIGTERM, lambda *_: stop.append(1));"
    "print('ready', flush=True)\n"
    "while not stop: time.sleep(0.01)\n"
    "time.sleep(0.3); print('saved', flush=True)"
)


def commands(*lines: str) -> list[str]:
    """bash with the function ``run`` of demo.sh, and lines that use it."""
    text = DEMO.read_text()
    function = text[text.index("set -m") : text.index("\n}\n") + 3]
    return ["bash", "-c", "\n".join(["set -euo pipefail", function, *lines])]


def listen_to_interrupts() -> None:
    """A shell's background has SIGINT ignored, and bash cannot undo that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_command_save(number):
    """What follows in the demo is not begun."""
    run = f'run {sys.executable} -c "{CHILD}"'
    process = subprocess.Popen(
        commands(run, "echo went on"),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=listen_to_interrupts,
    )
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=30)
    assert output == "saved\n"
    assert process.returncode == 130


def test_without_a_signal_the_demo_goes_on_or_fails():
    """The status of the command decides."""
    done = subprocess.run(
        commands("run true", "echo on", "run false", "echo no"), text=True, capture_output=True
    )
    assert (done.stdout, done.returncode) == ("on\n", 1)
