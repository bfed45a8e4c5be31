"""Snapshots: which stay, what they cost, and what a full disk does to them."""

import shutil
from collections import namedtuple

import pytest
import torch

from utils.training.checkpoint import read_checkpoint
from utils.training.snapshots import Snapshots, snapshot_files

pytestmark = pytest.mark.usefixtures("narrow_networks")

Usage = namedtuple("Usage", "total used free")
SIZE = 4 * (1000 * 999 + 999)  # bytes of the network below


@pytest.fixture
def keeper(tmp_path):
    """Makes Snapshots(every, last) of a network of 4 MB in ``tmp_path``, with a last.pt."""
    network = torch.nn.Linear(1000, 999)
    (tmp_path / "last.pt").write_bytes(bytes(1000))
    metadata = {"name": "run", "inference_network": "teacher", "settings": {"lr": 0.1}}

    def make(every, last=None, writes=True):
        return Snapshots(tmp_path / "last.pt", every, last, network, metadata, writes)

    return make


def names(folder) -> list[str]:
    return [path.name for path in snapshot_files(folder)]


def test_a_snapshot_holds_the_network_for_inference_alone(keeper, tmp_path):
    """Under the name of its part, with the metadata of the run, its step and a name of its own."""
    assert keeper(5).keep(5) == []
    content = read_checkpoint(tmp_path / "step_0000005.pt")
    assert content["parts"].keys() == {"teacher"}
    assert (content["name"], content["run"], content["step"]) == ("run-step5", "run", 5)
    assert content["settings"] == {"lr": 0.1}
    assert content["inference_network"] == "teacher"


def test_the_newest_stay_in_the_order_of_steps(keeper, tmp_path):
    """Over the whole run: another start counts those that are there."""
    for step in (9_999_998, 9_999_999):
        keeper(1, last=2).keep(step)
    (tmp_path / "step_of_mine.pt").touch()
    keeper(1, last=2).keep(10_000_000)  # one digit more
    assert names(tmp_path) == ["step_9999999.pt", "step_10000000.pt"]
    assert (tmp_path / "step_of_mine.pt").exists()


def test_when_a_snapshot_is_due(keeper):
    assert [step for step in range(9) if keeper(3).is_due(step)] == [3, 6]
    assert not any(keeper(0).is_due(step) for step in range(9))
    keeper(3).keep(3)
    assert [step for step in range(9) if keeper(3).is_missing(step)] == [6]


@pytest.mark.parametrize(
    ("every", "last", "steps", "files"), [(5, None, 24, 4), (5, 2, 24, 2), (5, 9, 24, 4)]
)
def test_the_bound_on_the_disk_is_said_and_kept(keeper, tmp_path, every, last, steps, files):
    line = keeper(every, last).announcement(steps)[0]
    assert f"at most {files} files of 4 MB, at most {4 * files + 4} MB on the disk" in line
    for step in range(steps + 1):
        if keeper(every, last).is_due(step):
            keeper(every, last).keep(step)
    assert len(names(tmp_path)) == files
    size = sum(path.stat().st_size for path in snapshot_files(tmp_path))
    assert files * SIZE < size < files * SIZE * 1.01


def test_nothing_is_said_or_written_without_the_flag(keeper, tmp_path):
    assert keeper(0).announcement(100) == []
    assert keeper(5, writes=False).announcement(100) == []
    assert keeper(5, writes=False).keep(5) == []
    assert names(tmp_path) == []


def test_a_snapshot_leaves_room_for_the_next_last_pt(keeper, tmp_path, monkeypatch):
    """Where both do not fit, the snapshot is left out, a warning says so, and none is removed."""
    keeper(1, last=1).keep(1)
    for free, kept in ((SIZE + 999, False), (SIZE + 1000, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: Usage(0, 0, free))
        warnings = keeper(1, last=1).keep(2)
        assert bool(warnings) != kept
        assert names(tmp_path) == ["step_0000002.pt" if kept else "step_0000001.pt"]
        if warnings:
            assert "WARNING: no snapshot of step 2: 4 MB are free" in warnings[0]
            assert "The run goes on" in warnings[0]


def test_a_bound_beyond_the_disk_is_warned_of_at_the_start(keeper, monkeypatch):
    """What the run already keeps needs no more room."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 5 * SIZE))
    assert len(keeper(1).announcement(4)) == 1
    assert "no room for all snapshots" in keeper(1).announcement(5)[1]
    keeper(1).keep(1)
    assert len(keeper(1).announcement(5)) == 1


def test_a_failed_write_is_a_warning_and_leaves_all_files(keeper, tmp_path, monkeypatch):
    keeper(1, last=1).keep(1)

    def full_disk(_content, file):
        file.write(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full_disk)
    warnings = keeper(1, last=1).keep(2)
    assert "no snapshot of step 2 (PytorchStreamWriter failed" in warnings[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "step_0000001.pt"]
