"""Runs that are made to collapse on the target: they say so, and --stop-on-collapse ends them."""

import json

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train_da
from model.uda import collapse_monitor
from model.uda.self_training import SelfTraining
from tests.helpers.checkpoints import same_state
from tests.helpers.cli import start, words
from tests.helpers.networks import write_checkpoint
from utils.training.checkpoint import read_checkpoint

MONITOR = ("--method", "self-training", "--ema", 0, "--lr", 1e-9, "--collapse-window", 3)
MONITOR += ("--save-every", 100, "--warmup", 3)


@pytest.fixture
def network(tmp_path):
    """A network whose predictions are of several classes, as --init."""
    return "--init", write_checkpoint(tmp_path / "init.pt")


@pytest.fixture
def collapse(monkeypatch):
    """From step 3 on no pixel is predicted as the class that was most frequent. Holds its name."""
    build, update, found = train_da.build_collapse_monitor, train_da.update, {}

    def build_monitor(*arguments):
        found["monitor"], found["steps"] = build(*arguments), 0
        return found["monitor"]

    def spoil(*arguments):
        update(*arguments)
        found["steps"] += 1
        if found["steps"] == 3 and "class" not in found:
            scalars = found["monitor"].scalars()
            names = [name for name in scalars if name.startswith("target_share/")]
            largest = max(range(len(names)), key=lambda index: scalars[names[index]])
            found["class"] = names[largest].removeprefix("target_share/")
            with torch.no_grad():
                found["head"].bias[largest] -= 1e4

    # Three steps are too few for a certain loss: tests/model/uda/test_collapse_monitor.py.
    monkeypatch.setattr(collapse_monitor, "STANDARD_ERRORS", 0)
    monkeypatch.setattr(train_da, "build_collapse_monitor", build_monitor)
    monkeypatch.setattr(train_da, "update", spoil)
    init = SelfTraining.__init__

    def keep_head(self, model, *arguments):
        found["head"] = model.head
        init(self, model, *arguments)

    monkeypatch.setattr(SelfTraining, "__init__", keep_head)
    return found


def events(folder) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


def test_a_collapse_is_said_and_stops_the_run(
    collapse, network, gta5_root, cityscapes_root, tmp_path, capsys
):
    """Said once on the screen, in TensorBoard and in config.json; --resume does not stop again."""
    roots = (gta5_root, cityscapes_root, tmp_path)
    flags = words("train_da", *roots, *MONITOR, *network, "--max-steps", 7, "--stop-on-collapse")
    start("train_da", *flags)
    said = capsys.readouterr().out
    text = f"WARNING: {collapse['class']} collapses on the target: 0 %"
    assert said.count(text) == 1
    assert "target_share" not in said
    assert "Stopped by --stop-on-collapse after step 6, saved to" in said
    assert "Done." not in said
    (entry,) = json.loads((tmp_path / "run/config.json").read_text())
    beginnings = [warning.split(" in steps")[0] for warning in entry["warnings"]]
    expected = f"step 6: {text} of the pixels are predicted as {collapse['class']}"
    assert beginnings.count(expected) == 1
    last = read_checkpoint(tmp_path / "run/last.pt")
    assert (last["step"], last["finished"]) == (6, False)
    start("train_da", *flags, "--resume")
    said = capsys.readouterr().out
    assert text not in said
    assert "Done." in said
    found = events(tmp_path / "run")
    shown = [event.tensor_proto.string_val[0] for event in found.Tensors("warning/text_summary")]
    assert len([warning for warning in shown if warning.decode().startswith(text)]) == 1
    shares = {e.step: e.value for e in found.Scalars(f"target_share/{collapse['class']}")}
    assert shares[3] > 0
    assert shares[7] == 0
    assert any(tag.startswith("target_confidence/") for tag in found.Tags()["scalars"])
    assert found.Scalars("pseudo_label/student_agreement")


@pytest.mark.slow
def test_without_the_flag_a_collapsed_run_goes_on(
    collapse, network, gta5_root, cityscapes_root, tmp_path, capsys
):
    """To its end, and to the state that a stopped and resumed run ends in."""
    roots, flags = (gta5_root, cityscapes_root), (*MONITOR, *network, "--max-steps", 7)
    start("train_da", *words("train_da", *roots, tmp_path / "a", *flags))
    said = capsys.readouterr().out
    assert "collapses on the target" in said
    assert "Done." in said
    collapse.pop("class")
    stopping = words("train_da", *roots, tmp_path / "b", *flags, "--stop-on-collapse")
    start("train_da", *stopping)
    start("train_da", *stopping, "--resume")
    assert same_state(tmp_path / "a/run/last.pt", tmp_path / "b/run/last.pt")


def test_a_run_from_before_the_monitor_can_go_on(gta5_root, cityscapes_root, tmp_path):
    """Its checkpoint holds no monitor and none of its settings."""
    roots = (gta5_root, cityscapes_root, tmp_path)
    flags = words("train_da", *roots, "--method", "minent")
    start("train_da", *flags, "--max-steps", 1)
    last = tmp_path / "run/last.pt"
    content = torch.load(last, weights_only=True)
    del content["monitors"]
    for name in ("stop_on_collapse", "collapse_window", "keep_every", "keep_last"):
        del content["settings"][name]
    torch.save(content, last)
    start("train_da", *flags, "--max-steps", 2, "--resume")
    assert read_checkpoint(last)["step"] == 2


def test_monitors_go_on_in_a_resumed_run(gta5_root, cityscapes_root, tmp_path):
    """As in an uninterrupted one; the first versions kept the collapse monitor by itself."""
    found = {}
    for name, stops in (("whole", [3]), ("parts", [1, 3]), ("older", [1, 3])):
        place = words("train_da", gta5_root, cityscapes_root, tmp_path / name)
        for stop in stops:
            resume = ["--resume"] if stop != stops[0] else []
            start("train_da", *place, "--max-steps", stop, *resume)
            last = tmp_path / name / "run/last.pt"
            content = torch.load(last, weights_only=True)
            if (name, stop) == ("older", 1):
                content |= {"collapse_monitor": content.pop("monitors")["collapse_monitor"]}
                torch.save(content, last)
        found[name] = content["monitors"]
    assert found["whole"].keys() == {"collapse_monitor", "balance_monitor"}
    for name in ("parts", "older"):
        states = (found["whole"]["collapse_monitor"], found[name]["collapse_monitor"])
        assert torch.equal(*(state["ring"] for state in states))
        assert [state["done"] for state in states] == [3, 3]
    assert found["parts"]["balance_monitor"] == found["whole"]["balance_monitor"]
