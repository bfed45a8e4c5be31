"""Stop signals: a run saves and leaves when it is asked to."""

import signal


class StopRequest:
    """Notes SIGINT, SIGTERM and SIGUSR1 (a scheduler's warning) so that the loop can save and
    leave. A second SIGINT leaves at once.

    Listens inside ``with``; after it, signals do again what they did before.
    """

    def __init__(self):
        self.signal: str | None = None
        self._interrupted = False

    def __enter__(self) -> "StopRequest":
        self._before = {
            number: signal.signal(number, self._note)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        if number == signal.SIGINT:
            if self._interrupted:
                signal.default_int_handler(number, None)
            self._interrupted = True
        self.signal = signal.Signals(number).name

    def __bool__(self) -> bool:
        return self.signal is not None

    def __str__(self) -> str:
        return self.signal or "a signal to another process"
