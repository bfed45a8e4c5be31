"""Locks: one process at a time, on every system, and work that goes on where there are none."""

import errno
import os
import types

import pytest

from utils import locks
from utils.locks import FileLock


def test_another_process_is_kept_out_until_the_end(tmp_path):
    with FileLock(tmp_path / "lock"):
        assert in_a_child(tmp_path / "lock") == "held"
    assert in_a_child(tmp_path / "lock") == "free"


def in_a_child(path) -> str:
    """What another process finds. It ends without closing: the system frees the lock."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            FileLock(path)
            os.write(writing, b"free")
        except BlockingIOError:
            os.write(writing, b"held")
        finally:
            os._exit(0)
    os.wait()
    return os.read(reading, 9).decode()


@pytest.mark.parametrize("number", sorted(locks._UNAVAILABLE))
def test_without_locks_work_goes_on_with_a_warning(number, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(locks.fcntl, "lockf", refuse)
    with FileLock(tmp_path / "lock"):
        warning = capsys.readouterr().err
    assert f"{tmp_path} cannot be locked ({os.strerror(number)})" in warning
    assert "--output" in warning


def test_a_python_without_locks_warns(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locks, "fcntl", None)
    with FileLock(tmp_path / "lock"):
        assert "cannot be locked" in capsys.readouterr().err


def test_windows_locks_by_msvcrt(tmp_path, monkeypatch):
    """Its lock answers EACCES when it is held."""
    calls = []

    def locking(handle, mode, count):
        calls.append((mode, count))
        if len(calls) > 1:
            raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2))
    with FileLock(tmp_path / "lock"), pytest.raises(BlockingIOError, match="Another process"):
        FileLock(tmp_path / "lock")
    assert calls == [(2, 1), (2, 1)]


def test_other_refusals_are_errors(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(locks.fcntl, "lockf", fail)
    with pytest.raises(OSError, match="Input/output"):
        FileLock(tmp_path / "lock")
