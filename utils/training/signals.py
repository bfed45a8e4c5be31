"""Stop signals: a run saves and leaves when it is asked to."""

import signal

STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)
"""Windows has no SIGUSR1."""


class StopRequest:
    """Notes SIGINT, SIGTERM and SIGUSR1 (a scheduler's warning) so that the loop can save and
    leave. A second SIGINT leaves at once.

    Listens inside ``with``; after it, signals do again what they did before.
    """

    def __init__(self):
        self.signal: str | None = None

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        if self.signal == "SIGINT" and number == signal.SIGINT:
            signal.default_int_handler(number, None)
        self.signal = signal.Signals(number).name

    def __bool__(self) -> bool:
        return self.signal is not None

    def __str__(self) -> str:
        return self.signal or "a signal to another process"
