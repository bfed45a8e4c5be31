"""Runs that keep snapshots: a resumed run keeps the same, and every script reads them."""

import numpy as np
import pytest
import torch

import train
import train_da
from dataset.labels import CLASS_NAMES
from model.build import NetworkOptions, build_network
from model.inference.predictor import load_predictor
from tests.helpers.checkpoints import same_state
from tests.helpers.cli import start, words
from utils.training import snapshots as snapshot_module
from utils.training.checkpoint import read_checkpoint
from utils.training.run_folder import RunFolder
from utils.training.snapshots import Snapshots, snapshot_files

pytestmark = pytest.mark.usefixtures("narrow_networks")

CPU = torch.device("cpu")
KEEPING = ("--keep-every", 2, "--save-every", 100, "--log-every", 100)
TEACHER = ("--method", "self-training", "--ema", 0.5)


def snapshots(folder) -> dict:
    """{file name: content} of the snapshots in a run folder."""
    return {path.name: read_checkpoint(path) for path in snapshot_files(folder)}


def test_a_resumed_run_keeps_the_same_snapshots(gta5_root, cityscapes_root, tmp_path, monkeypatch):
    """Killed after last.pt and before the snapshot of step 2, with --keep-last 2 of three."""
    roots = (gta5_root, cityscapes_root)
    keep = (*KEEPING, *TEACHER, "--keep-every", 1, "--keep-last", 2, "--max-steps", 3)
    start("train_da", *words("train_da", *roots, tmp_path / "a", *keep))
    broken = words("train_da", *roots, tmp_path / "b", *keep)
    write = Snapshots._write

    def killed(self, step):
        if step == 2:
            raise KeyboardInterrupt
        write(self, step)

    monkeypatch.setattr(Snapshots, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        start("train_da", *broken)
    monkeypatch.undo()
    assert list(snapshots(tmp_path / "b/run")) == ["step_0000001.pt"]
    assert read_checkpoint(tmp_path / "b/run/last.pt")["step"] == 2
    start("train_da", *broken, "--resume")
    assert same_state(tmp_path / "a/run/last.pt", tmp_path / "b/run/last.pt")
    straight, resumed = snapshots(tmp_path / "a/run"), snapshots(tmp_path / "b/run")
    assert list(straight) == list(resumed) == ["step_0000002.pt", "step_0000003.pt"]
    for name, content in straight.items():
        for key, value in content["parts"]["teacher"].items():
            assert torch.equal(value, resumed[name]["parts"]["teacher"][key])


def test_a_snapshot_is_a_checkpoint_of_the_evaluated_network(
    gta5_root, cityscapes_root, tmp_path, capsys
):
    """It predicts what last.pt of its step predicts, and --init takes it; it is much smaller."""
    roots = (gta5_root, cityscapes_root, tmp_path)
    start("train_da", *words("train_da", *roots, *KEEPING, *TEACHER, "--max-steps", 2))
    last, snapshot = tmp_path / "run/last.pt", tmp_path / "run/step_0000002.pt"
    assert snapshot.stat().st_size < 0.4 * last.stat().st_size
    said = capsys.readouterr().out
    assert "Snapshots: the network every 2 steps, at most 1 files of" in said
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8))
    scores = [
        load_predictor(read_checkpoint(path), 19, CPU).class_scores(images)
        for path in (last, snapshot)
    ]
    assert torch.equal(*scores)
    options = NetworkOptions("resnet18", "none", None, "local", "imagenet")
    network = build_network(options, CLASS_NAMES, CPU, read_checkpoint(snapshot))
    assert torch.equal(
        network.head.weight, read_checkpoint(last)["parts"]["teacher"]["head.weight"]
    )


def test_a_full_disk_while_keeping_does_not_stop_a_run(
    gta5_root, cityscapes_root, tmp_path, monkeypatch, capsys
):
    """last.pt is saved at that step, and its weights do not depend on snapshots."""
    roots = (gta5_root, cityscapes_root)
    flags = ("--max-steps", 3, "--save-every", 100)
    start("train", *words("train", *roots, tmp_path / "a", *flags))

    def full(self, step):
        raise OSError("no space") from OSError(28, "No space left on device")

    monkeypatch.setattr(Snapshots, "_write", full)
    start("train", *words("train", *roots, tmp_path / "b", *flags, *KEEPING))
    said = capsys.readouterr().out
    assert "WARNING: no snapshot of step 2 ([Errno 28] No space left on device)" in said
    assert not snapshots(tmp_path / "b/run")
    assert same_state(tmp_path / "a/run/last.pt", tmp_path / "b/run/last.pt")


@pytest.mark.parametrize(
    ("cause", "remedy"),
    [
        (OSError(28, "No space left on device"), "make room"),
        (RuntimeError("[enforce fail at inline_container.cc]"), "make room"),
        (PermissionError(13, "Permission denied"), "files can be written there"),
    ],
)
def test_the_warning_has_the_remedy_of_its_cause(cause, remedy, tmp_path, monkeypatch):
    """Room helps against a full disk, which torch reports as RuntimeError, and nothing else."""
    (tmp_path / "last.pt").touch()
    keeping = Snapshots(tmp_path / "last.pt", 1, None, torch.nn.Linear(1, 1), {"name": "a"})

    def fail(*_, **__):
        raise OSError("Could not write") from cause

    monkeypatch.setattr(snapshot_module, "save_checkpoint", fail)
    (warning,) = keeping.keep(1)
    assert remedy in warning.split(";")[-1]


def test_snapshots_without_last_pt_are_not_overwritten(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "step_0000002.pt").touch()
    with pytest.raises(FileExistsError, match="holds snapshots of a run"):
        RunFolder(folder, resume=False)


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        (train, ("--train-on", "source", "--gta5", "g")),
        (train_da, ("--gta5", "g", "--cityscapes", "c")),
    ],
)
def test_a_number_of_no_snapshots_is_refused(script, flags, capsys):
    with pytest.raises(SystemExit):
        script.parse_arguments([*flags, "--keep-last", "3"])
    assert "Add --keep-every STEPS" in capsys.readouterr().err
