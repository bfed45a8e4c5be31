"""Scripts in processes of their own, forked from one that has imported the project already.

A fresh interpreter needs 4 s for its imports, most of them torch's; a fork needs none. A test that
is about the interpreter itself starts one with tests/helpers/cli.py instead.
"""

import atexit
import contextlib
import multiprocessing
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.helpers.narrow import are_narrow, narrow_backbones

ROOT = Path(__file__).parents[2]
_PRELOADED = ["train", "train_da", "eval"]


class ForkedScript:
    """A script that runs beside the test, in a session (process group) of its own.

    ``script``: a file such as "train.py", or a module such as "scripts.predict". ``file_limit``:
    bytes that each file may have at most, as on a full disk. ``environment`` is added to that of
    the tests. Its networks are narrow where those of the test are. Use ``with``, which kills the
    script and its children when the test fails.
    """

    def __init__(
        self,
        script: str,
        *words: object,
        environment: dict[str, str] | None = None,
        file_limit: int | None = None,
    ):
        self._folder = tempfile.TemporaryDirectory()
        files = [str(Path(self._folder.name, name)) for name in ("stdout", "stderr")]
        for file in files:
            Path(file).touch()
        self._files = [open(file) for file in files]  # noqa: SIM115
        words, environment = list(map(str, words)), environment or {}
        self._process = _context().Process(
            target=_run_script,
            args=(script, words, files, environment, file_limit, are_narrow()),
        )
        self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_for_line(self, beginning: str, timeout_s: float = 120) -> None:
        """Returns when a line of stdout begins with ``beginning``; fails if the script ends first
        or takes longer than ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        while not any(line.startswith(beginning) for line in self.stdout.splitlines()):
            assert self._process.is_alive(), f"no line {beginning!r}:\n{self.stdout}{self.stderr}"
            assert time.monotonic() < deadline, f"no line {beginning!r} in time:\n{self.stdout}"
            time.sleep(0.01)

    def wait(self, timeout_s: float = 120) -> int:
        """The exit status, negative if a signal ended the script; fails after ``timeout_s``."""
        self._process.join(timeout_s)
        assert self._process.exitcode is not None, f"did not end:\n{self.stdout}{self.stderr}"
        return self._process.exitcode

    @property
    def stdout(self) -> str:
        """What the script has printed so far."""
        return self._read(0)

    @property
    def stderr(self) -> str:
        """What the script has written to its standard error so far."""
        return self._read(1)

    def _read(self, number: int) -> str:
        self._files[number].seek(0)
        return self._files[number].read()

    def __enter__(self) -> "ForkedScript":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.is_alive():
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:  # killed before it had its own group
                self._process.kill()
            self._process.join()
        for file in self._files:
            file.close()
        self._folder.cleanup()


def run_forked(
    script: str, *words: object, file_limit: int | None = None, timeout_s: float = 200
) -> subprocess.CompletedProcess:
    """Runs a script to its end, like ``subprocess.run(..., capture_output=True, text=True)``."""
    with ForkedScript(script, *words, file_limit=file_limit) as process:
        status = process.wait(timeout_s)
        return subprocess.CompletedProcess([script, *words], status, process.stdout, process.stderr)


def forked_child(command: list[str], quiet: bool = False) -> tuple[int, None]:
    """Stands in for utils.child.run_child: [python, "train.py", ...] or [python, "-m", ...]."""
    assert command[0] == sys.executable
    done = run_forked(*command[2 if command[1] == "-m" else 1 :])
    return done.returncode, None


class ForkedPopen(ForkedScript):
    """Stands in for subprocess.Popen([python, "-m", "scripts.check_gpu.worker", ...])."""

    def __init__(self, command: list[str], **_: object):
        assert command[0] == sys.executable
        super().__init__(*command[2 if command[1] == "-m" else 1 :])

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout_s: float = 120) -> int:
        """Also removes the files of what it has printed."""
        status = super().wait(timeout_s)
        self.__exit__()
        return status


class ForkingSubprocess:
    """Stands in for the module ``subprocess`` where a script starts other scripts: the commands
    run as they are, but forked.
    """

    DEVNULL = subprocess.DEVNULL
    Popen = ForkedPopen

    @staticmethod
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess:
        """Runs [python, "train.py", ...] or [python, "-m", "scripts.predict", ...]."""
        assert command[0] == sys.executable
        return run_forked(*command[2 if command[1] == "-m" else 1 :])


def run_together(
    script: str, *words: object, processes: int, timeout_s: float = 200
) -> subprocess.CompletedProcess:
    """Runs a script in several processes that train or score together, as torchrun starts them.

    stdout and stderr are those of all processes; the status is that of the first one that failed.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    common = {
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
    }
    group = [
        ForkedScript(
            script, *words, environment=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
        for rank in range(processes)
    ]
    try:
        statuses = [process.wait(timeout_s) for process in group]
        return subprocess.CompletedProcess(
            [script, *words],
            next((status for status in statuses if status), 0),
            "".join(process.stdout for process in group),
            "".join(process.stderr for process in group),
        )
    finally:
        for process in group:
            process.__exit__()


def _context() -> multiprocessing.context.BaseContext:
    """The server that forks, started in the repository's root the first time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    before = Path.cwd()
    os.chdir(ROOT)  # from where the server imports the project
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        os.chdir(before)
    return context


def _run_script(
    script: str,
    words: list[str],
    files: list[str],
    environment: dict[str, str],
    file_limit: int | None,
    narrow: bool,
) -> None:
    """What the forked process does: as the shell's ``python script words``."""
    multiprocessing.set_start_method(None, force=True)  # workers start as anywhere else
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY), number)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    os.environ.update(environment)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    sys.argv = [script, *words]
    os.chdir(ROOT)
    try:
        with narrow_backbones() if narrow else contextlib.nullcontext():
            if script.endswith(".py"):
                runpy.run_path(script, run_name="__main__")
            else:
                runpy.run_module(script, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out
