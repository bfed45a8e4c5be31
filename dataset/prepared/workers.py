"""Processes many files in several processes, which end when their parent ends."""

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import TypeVar

import cv2

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
    with ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(os.getpid(),)) as pool:
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


def _start_worker(parent: int) -> None:
    """Sets one thread per worker. The parent answers Ctrl-C; a worker ends with its parent."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
