"""Runs another program of this project to its end, and hands signals on to it."""

import signal
import subprocess
from collections.abc import Sequence

from utils.training.signals import handle_stop_signals


def run_child(command: Sequence[str], quiet: bool = False) -> tuple[int, str | None]:
    """The exit status of ``command``, and the name of a signal that asked it to stop, or None.

    ``quiet``: what it prints is not shown, but for errors.

    Waits for the child after a signal, because a training saves before it ends. Signals are passed
    on, but SIGTERM in place of SIGINT: at Ctrl-C the terminal sends SIGINT to the child as well,
    and a second SIGINT would end it before it has saved.
    """
    child, received = None, []

    def pass_on(number: int, _frame: object) -> None:
        received.append(number)
        if child is not None:
            child.send_signal(signal.SIGTERM if number == signal.SIGINT else number)

    before = handle_stop_signals(pass_on)
    try:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL if quiet else None)
        if received:  # before the child was there
            child.terminate()
        status = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status, signal.Signals(received[0]).name if received else None
