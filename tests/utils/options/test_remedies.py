"""Errors of libraries and of the system have remedies; faults of ours keep their traceback."""

import os
import pickle
import signal
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._utils import ExceptionWrapper

from tests.helpers.forked import ForkedScript, run_forked
from utils.options.parser import user_errors_without_traceback
from utils.options.remedies import _BY_ERRNO, user_message


class InductorError(RuntimeError):
    """As torch._inductor raises it."""

    __module__ = "torch._inductor.exc"


SHARED_MEMORY = "unable to allocate shared memory(shm) for file </torch_1_2_0>: No space left (28)"
LIBRARY_ERRORS = [
    (RuntimeError(SHARED_MEMORY), "--shm-size"),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is"), "--shm-size"),
    (RuntimeError("unable to open file </torch_1_2> in read-write mode: Too many open"), "shm"),
    (RuntimeError("unable to open shared memory object: Too many open files (24)"), "ulimit -n"),
    (RuntimeError("received 0 items of ancdata"), "ulimit -n"),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "fewer --workers"),
    (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "fewer --workers"),
    (BrokenProcessPool("A process in the process pool was terminated abruptly"), "fewer --workers"),
    (InductorError("InvalidCxxCompiler: No working C++ compiler found in (None, '')"), "g++"),
    (InductorError("PermissionError: [Errno 13] Permission denied: '/x'"), "TORCHINDUCTOR_CACHE"),
    (InductorError("anything else"), "leave --compile out"),
    (RuntimeError("Failed to find C compiler. Please specify via CC"), "g++"),
    (MemoryError(), "Not enough memory"),
    (np._core._exceptions._ArrayMemoryError((9**9,), np.dtype("u1")), "Not enough memory"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "Not enough memory"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"), "memory"),
    (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "memory"),
    (RuntimeError("GET was unable to find an engine to execute this computation"), "memory"),
    (torch.distributed.DistNetworkError("port 29500: EADDRINUSE, in use"), "--standalone"),
    (RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer"), "first"),
    (RuntimeError("CUDA error: no kernel image is available for execution"), "--device cpu"),
]


@pytest.mark.parametrize(("error", "remedy"), LIBRARY_ERRORS)
def test_errors_of_libraries_have_remedies(error, remedy):
    """What was found and what to do, in one line; also from a worker that reads images."""
    for found in (error, reraised(error)):
        message = user_message(found)
        assert message is not None, found
        assert remedy in message
        assert "\n" not in message


def reraised(error: Exception) -> Exception:
    """An error of a worker, as the DataLoader raises it in the main process."""
    try:
        raise error
    except type(error):
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
    try:
        wrapped.reraise()
    except Exception as raised:
        return raised


@pytest.mark.parametrize("number", sorted(_BY_ERRNO))
def test_refusals_of_the_system_have_remedies(number):
    """Whoever calls the system: a library, a worker. The message names the file."""
    for error in (OSError(number, os.strerror(number), "a/b.png"), reraised(OSError(number, "no"))):
        message = user_message(error)
        assert message is not None
        assert "Errno" not in message
        assert "\n" not in message
    expected = f"a/b.png: {os.strerror(number)}. {_BY_ERRNO[number]}"
    assert user_message(OSError(number, os.strerror(number), "a/b.png")) == expected


@pytest.mark.parametrize(
    "error",
    [TypeError("x"), KeyError("teacher"), RuntimeError("size mismatch"), AssertionError()],
    ids=lambda error: type(error).__name__,
)
def test_faults_of_ours_keep_their_traceback(error):
    with pytest.raises(type(error)), user_errors_without_traceback():
        raise error


def test_errors_of_libraries_about_values_are_faults():
    """A ValueError that no line of ours raised is no message for users."""
    with pytest.raises(ValueError, match="square"), user_errors_without_traceback():
        np.linalg.inv(np.zeros((2, 3)))
    with pytest.raises(pickle.UnpicklingError), user_errors_without_traceback():
        pickle.loads(b"<html>")


def test_our_messages_are_shown_as_they_are():
    with pytest.raises(SystemExit, match="^error: found x"), user_errors_without_traceback():
        raise ValueError("found x, expected y")
    with (
        pytest.raises(SystemExit, match="^error: nowhere: No such"),
        user_errors_without_traceback(),
    ):
        Path("nowhere").read_text()


PRINTER = """
import sys, time
sys.path.insert(0, ".")
from utils.options.parser import user_errors_without_traceback
with user_errors_without_traceback():
    print("b\\udce9ton", flush=True)
    {}
"""


def test_ctrl_c_and_a_closed_output_leave_no_traceback(tmp_path):
    """Names that no terminal can show are printed; Ctrl-C ends with 130, `| head` with 141."""
    (tmp_path / "waits.py").write_text(PRINTER.format("time.sleep(60)"))
    with ForkedScript(str(tmp_path / "waits.py")) as script:
        script.wait_for_line("b\\udce9ton")
        os.kill(script.pid, signal.SIGINT)
        assert script.wait() == 130
        assert script.stderr.strip() == "Interrupted."
    closed = "import os; r, w = os.pipe(); os.close(r); os.dup2(w, 1); print('more', flush=True)"
    (tmp_path / "closed.py").write_text(PRINTER.format(closed))
    done = run_forked(str(tmp_path / "closed.py"))
    assert done.returncode == 141
    assert "Traceback" not in done.stderr


def test_a_broken_pipe_of_another_kind_is_not_hidden():
    """Only the output's reader may leave."""
    with pytest.raises(SystemExit) as ended, user_errors_without_traceback():
        raise BrokenPipeError("The display has gone. Start it again.")
    assert ended.value.code == "error: The display has gone. Start it again."
    assert sys.stdout.writable()
