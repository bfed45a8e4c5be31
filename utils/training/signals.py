"""Stop signals: a run saves and leaves when it is asked to."""

import signal
import time

STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)
"""Windows has no SIGUSR1."""

SAME_INTERRUPT_S = 1.0
"""A terminal sends Ctrl-C to all processes, and torchrun hands it on to its own once more."""


class StopRequest:
    """Notes SIGINT, SIGTERM and SIGUSR1 (a scheduler's warning) so that the loop can save and
    leave. A second Ctrl-C, a second later or more, leaves at once.

    Listens inside ``with``; after it, signals do again what they did before.
    """

    def __init__(self):
        self.signal: str | None = None
        self._interrupted_at: float | None = None

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
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
