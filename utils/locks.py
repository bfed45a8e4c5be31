"""Locks that hold a folder for one process, on every system."""

import errno
import sys
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
try:
    import msvcrt
except ImportError:  # everywhere else
    msvcrt = None

_HELD = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}
"""What systems answer when another process has the lock."""
_UNAVAILABLE = {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What file systems without locks answer: Lustre, some NFS, some FUSE."""


class FileLock:
    """Locks the file ``path`` until ``close`` or the end of this process, however it ends.

    The lock belongs to the process: workers do not hold it after their parent was killed. Where
    there are no locks a warning is printed, and nothing is locked. Raises BlockingIOError when
    another process holds the lock, OSError when ``path`` cannot be written.
    """

    def __init__(self, path: Path):
        self._file = open(path, "w", encoding="utf-8")  # noqa: SIM115 (held as long as the lock)
        try:
            _lock(self._file.fileno())
        except OSError as error:
            if error.errno in _UNAVAILABLE:
                print(
                    f"WARNING: {Path(path).parent} cannot be locked ({error.strerror or error}):"
                    " its file system or this system has no locks. Work there with one process at"
                    " a time, or choose an --output on another disk.",
                    file=sys.stderr,
                    flush=True,
                )
                return
            self._file.close()
            if error.errno in _HELD:
                raise BlockingIOError(error.errno, f"Another process holds {path}.") from error
            raise

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "FileLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lock(handle: int) -> None:
    if fcntl is not None:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif msvcrt is not None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        raise OSError(errno.ENOSYS, "no locks in this Python")
