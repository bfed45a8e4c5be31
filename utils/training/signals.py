"""Stop signals: a run saves and leaves when it is asked to."""

import signal
import time
from collections.abc import Callable
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
STOP_SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
"""Windows has neither SIGHUP (a terminal or an SSH connection is closed) nor SIGUSR1."""

SAME_INTERRUPT_S = 1.0
"""A terminal sends Ctrl-C to all processes, and torchrun hands it on to its own once more."""


def handle_stop_signals(handler: Callable[[int, Any], None]) -> dict[int, Any]:
    """Sets the handler of the stop signals; returns the handlers before.

    A SIGHUP that is ignored stays ignored: under nohup a program outlives its terminal.
    """
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    for number, earlier in before.items():
        if earlier != signal.SIG_IGN or signal.Signals(number).name != "SIGHUP":
            signal.signal(number, handler)
    return before


class StopRequest:
    """Notes the stop signals (SIGUSR1 is a scheduler's warning) so that the loop can save and
    leave. A second Ctrl-C, a second later or more, leaves at once.

    Listens inside ``with``; after it, signals do again what they did before.
    """

    def __init__(self):
        self.signal: str | None = None
        self._interrupted_at: float | None = None

    def __enter__(self) -> "StopRequest":
        self._before = handle_stop_signals(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        if number == signal.SIGINT:
            if self._interrupted_at is None:
                self._interrupted_at = time.monotonic()
            elif time.monotonic() - self._interrupted_at >= SAME_INTERRUPT_S:
                signal.default_int_handler(number, None)
        self.signal = signal.Signals(number).name

    def __bool__(self) -> bool:
        return self.signal is not None

    def __str__(self) -> str:
        return self.signal or "a signal to another process"
