"""Processes many files in several processes, which end when their parent ends."""

import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import TypeVar

from dataset.threads import use_one_thread

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(
    items: Sequence[Item], work: Callable[[Item], Result], workers: int
) -> Iterator[Result]:
    """Yields ``work(item)`` of every item as results get ready; one worker: in this process.

    Raises the OSErrors of ``work``.
    """
    if workers == 1:
        yield from map(work, items)
        return
    with ProcessPoolExecutor(workers, initializer=_start_worker) as pool:
        waiting: set[Future] = set()
        remaining = iter(items)
        try:
            while True:
                # A few at a time: a million queued items would take a lot of memory.
                waiting |= {
                    pool.submit(work, item)
                    for item in itertools.islice(remaining, 4 * workers - len(waiting))
                }
                if not waiting:
                    return
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    try:
                        yield future.result()
                    except OSError as error:
                        # Without the traceback of the worker: the user needs the message only.
                        raise OSError(str(error)) from error
        finally:
            for future in waiting:
                future.cancel()


def _start_worker() -> None:
    """Sets one thread per worker. The parent answers Ctrl-C; a worker ends with its parent."""
    use_one_thread()
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        # Not getppid(): the parent of the system may be a server that starts the workers.
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
