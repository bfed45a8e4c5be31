import errno
import json
import os
import signal
import time
from contextlib import suppress

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import EXPERIMENT_TAG, SESSION_START_INFO_TAG
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.summary.writer.record_writer import RecordWriter

from tests.helpers.forked import run_forked
from utils.training.run_folder import HPARAM_COLUMNS, RunFolder
from utils.training.signals import STOP_SIGNALS, StopRequest


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
    script = tmp_path / "open.py"
    script.write_text(
        "from utils.training.run_folder import RunFolder\n"
        f"RunFolder({str(tmp_path / 'a')!r}, resume=False)\n"
    )
    with RunFolder(tmp_path / "a", resume=False):
        second = run_forked(str(script))
    assert "Another process is working in" in second.stderr
    assert run_forked(str(script)).returncode == 0


def test_the_record_tells_command_and_circumstances(tmp_path):
    with RunFolder(tmp_path / "a", resume=False) as run:
        run.record(settings={"lr": 0.1}, seed=3)
        run.last.write_bytes(b"x")
        run.record(settings={"lr": 0.1}, seed=3)
    entries = json.loads(run.config.read_text())
    assert len(entries) == 2
    assert {"argv", "git", "torch", "python", "settings", "seed", "cpu", "gpu"} <= entries[0].keys()


def test_hparams_have_the_columns_of_both_scripts(
    tmp_path,
):
    """TensorBoard takes the columns of its table from any one run."""
    with RunFolder(tmp_path / "a", resume=False) as run:
        run.open_events(0)
        run.log_hparams(
            {
                "lab": True,
                "lr": 0.1,
                "batch_size": 4,
                "backbone": "resnet18",
                "scales": [0.5, 1.0],
                "epochs": None,
            },
            ["loss/segmentation"],
        )
    events = EventAccumulator(str(tmp_path / "a")).Reload()
    table, row = (
        HParamsPluginData.FromString(events.SummaryMetadata(tag).plugin_data.content)
        for tag in (EXPERIMENT_TAG, SESSION_START_INFO_TAG)
    )
    columns = [info.name for info in table.experiment.hparam_infos]
    assert columns == [*HPARAM_COLUMNS, "scales"]
    assert [info.name.tag for info in table.experiment.metric_infos] == [
        "val/miou",
        "val/pixel_accuracy",
        "loss/segmentation",
    ]
    values = {
        name: getattr(value, value.WhichOneof("kind"))
        for name, value in row.session_start_info.hparams.items()
    }
    assert values == {
        "lab": True,
        "lr": 0.1,
        "batch_size": 4.0,
        "backbone": "resnet18",
        "scales": "[0.5, 1.0]",
    }


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_met_by_tensorboard_hides_no_other_error(tmp_path, monkeypatch, capsys):
    """Its thread fails, and all that uses the file after that; the folder closes all the same."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = RunFolder(tmp_path / "a", resume=False)
    run.open_events(0)
    monkeypatch.setattr(RecordWriter, "write", full)
    with suppress(OSError):
        run.log_by_class(1, {"share": 0.5})
    with pytest.raises(OSError, match="No space left"):
        run.flush_events()
    run.close()
    assert f"TensorBoard's file in {tmp_path / 'a'} lacks points" in capsys.readouterr().out
    RunFolder(tmp_path / "a", resume=False).close()  # the lock is free


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signals_are_noted(number, monkeypatch):
    """torchrun hands on the Ctrl-C that its processes got from the terminal: that is no second."""
    before, seconds = signal.getsignal(number), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: seconds[0])
    with StopRequest() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        assert stop.signal == number.name
        if number == signal.SIGINT:
            os.kill(os.getpid(), signal.SIGINT)
            seconds[0] = 1.0
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(number) == before


def test_nohup_outlives_its_terminal():
    """A SIGHUP that is ignored when the run begins does not stop it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
