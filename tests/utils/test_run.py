import json
import os
import signal
import subprocess
import sys

import pytest

from utils.run import RunFolder, StopRequest


def test_a_folder_that_holds_a_run_is_refused_without_resume(tmp_path):
    with RunFolder(tmp_path / "a", resume=False) as run:
        run.last.write_bytes(b"x")
    with pytest.raises(FileExistsError, match="already holds a run"):
        RunFolder(tmp_path / "a", resume=False)
    RunFolder(tmp_path / "a", resume=True).close()
    with pytest.raises(FileNotFoundError, match="Nothing to resume"):
        RunFolder(tmp_path / "b", resume=True)
    assert not (tmp_path / "b").exists()


def test_a_run_that_never_saved_may_start_again(tmp_path):
    for _ in range(2):
        with RunFolder(tmp_path / "a", resume=False) as run:
            run.record(settings={})
    assert len(json.loads(run.config.read_text())) == 1


def test_two_processes_in_one_folder(tmp_path):
    command = [sys.executable, "-c", f"from utils.run import RunFolder; RunFolder({str(tmp_path / 'a')!r}, resume=False)"]
    with RunFolder(tmp_path / "a", resume=False):
        second = subprocess.run(command, capture_output=True, text=True)
    assert "Another process is working in" in second.stderr
    assert subprocess.run(command, capture_output=True).returncode == 0


def test_the_record_tells_command_and_circumstances(tmp_path):
    with RunFolder(tmp_path / "a", resume=False) as run:
        run.record(settings={"lr": 0.1}, seed=3)
        run.last.write_bytes(b"x")
        run.record(settings={"lr": 0.1}, seed=3)
    entries = json.loads(run.config.read_text())
    assert len(entries) == 2
    assert {"argv", "git", "torch", "python", "settings", "seed", "cpu", "gpu"} <= entries[0].keys()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signals_are_noted(number):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        assert stop.signal == number.name
        if number == signal.SIGINT:
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(number) == before
