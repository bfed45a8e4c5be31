import pytest
import torch

from utils.training.checkpoint import plain, read_checkpoint, save_checkpoint
from utils.training.distributed import ProcessGroup
from utils.training.meters import LossMeter
from utils.training.resume_changes import differences
from utils.training.training_state import TrainingState


def meter():
    return LossMeter(ProcessGroup(torch.device("cpu")))


def make(path, **metadata):
    save_checkpoint(path, {"model": torch.nn.Linear(2, 2)}, **metadata)


def test_round_trip(tmp_path):
    model = torch.nn.Linear(2, 2)
    save_checkpoint(tmp_path / "last.pt", {"model": model}, step=3, settings={"lr": 0.1})
    content = read_checkpoint(tmp_path / "last.pt")
    assert content["step"] == 3
    assert torch.equal(content["parts"]["model"]["weight"], model.weight)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_only_plain_values_are_needed(tmp_path):
    from pathlib import Path

    make(tmp_path / "last.pt", settings=plain({"root": Path("a"), "size": (1, 2), "x": None}))
    assert read_checkpoint(tmp_path / "last.pt")["settings"] == {
        "root": "a",
        "size": [1, 2],
        "x": None,
    }


def test_a_failed_write_keeps_the_previous_file(tmp_path, monkeypatch):
    make(tmp_path / "last.pt", step=1)

    def full_disk(_content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match=r"previous last.pt is intact.*--resume"):
        make(tmp_path / "last.pt", step=2)
    monkeypatch.undo()
    assert read_checkpoint(tmp_path / "last.pt")["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_a_failed_first_write_is_not_to_be_resumed(tmp_path):
    """Nothing is there to go on from, and most scripts that write checkpoints have no --resume."""
    with pytest.raises(OSError, match=r"Choose another --output\.$"):
        make(tmp_path / "absent" / "last.pt", step=2)


def test_a_full_disk_is_called_so(tmp_path, monkeypatch):
    """Where torch speaks of positions in the file instead."""

    def full_disk(_content, file):
        try:
            raise OSError(28, "No space left on device")
        finally:
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 8 vs 4")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match=r"\(\[Errno 28\] No space left on device\)\. Make room"):
        make(tmp_path / "last.pt", step=2)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="No checkpoint"):
        read_checkpoint(tmp_path / "absent.pt")
    with pytest.raises(ValueError, match="is a folder"):
        read_checkpoint(tmp_path)
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(ValueError, match=r"no checkpoint, or a damaged one \(\w+Error"):
        read_checkpoint(tmp_path / "text.pt")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "object.pt")
    with pytest.raises(
        ValueError, match=r"a damaged one \(it is not, or not only, tensors and plain values\)"
    ):
        read_checkpoint(tmp_path / "object.pt")
    torch.save({"state": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="no checkpoint of this project"):
        read_checkpoint(tmp_path / "other.pt")
    (tmp_path / "small.onnx").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is an exported network\. Expected the checkpoint"):
        read_checkpoint(tmp_path / "small.onnx")
    make(tmp_path / "cut.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "cut.pt").read_bytes()[:-400])
    with pytest.raises(ValueError, match="no checkpoint, or a damaged one"):
        read_checkpoint(tmp_path / "cut.pt")


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "evidence"), "w"))

    torch.save({"format": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="no checkpoint"):
        read_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "evidence").exists()


def test_changed_settings_are_listed():
    before, now = {"lr": 0.1, "workers": 2, "seed": 0}, {"lr": 0.2, "workers": 4, "seed": 0}
    assert differences(now, before) == ["lr: 0.1 -> 0.2"]


def test_best_is_the_highest_score_and_marked(tmp_path):
    state = TrainingState(
        {"model": torch.nn.Linear(2, 2)}, {"settings": {}}, torch.device("cpu"), meter()
    )
    for step, miou in ((1, 0.2), (2, 0.5), (3, 0.4)):
        state.save_if_best(tmp_path / "best.pt", step, miou)
    best = read_checkpoint(tmp_path / "best.pt")
    assert best["step"] == 2
    assert best["best"] == {"miou": 0.5, "step": 2}
    assert best["chosen_with_labels"] is True


def test_a_checkpoint_of_another_script_is_refused(tmp_path):
    device = torch.device("cpu")
    TrainingState({"model": torch.nn.Linear(2, 2)}, {"settings": {}}, device, meter()).save(
        tmp_path / "last.pt", 1
    )
    other = TrainingState(
        {"model": torch.nn.Linear(2, 2), "discriminator": torch.nn.Linear(2, 2)},
        {"settings": {}},
        device,
        meter(),
    )
    with pytest.raises(ValueError, match="Another script made it"):
        other.resume(tmp_path / "last.pt")


class TestNothingIsWrittenFromWhatIsNotFinite:
    def state(self, tmp_path):
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
        adam = torch.optim.Adam(model.parameters())
        model(torch.randn(2, 3, 4, 4)).sum().backward()
        adam.step()
        state = TrainingState(
            {"model": model, "adam": adam}, {"settings": {}}, torch.device("cpu"), meter()
        )
        state.save(tmp_path / "last.pt", 1)
        return state, model, adam

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize("where", ["weight", "statistics", "optimizer"])
    def test_in_any_part(self, tmp_path, where, value):
        state, model, adam = self.state(tmp_path)
        weight = model[0].weight
        tensor = {
            "weight": weight.data,
            "statistics": model[1].running_var,
            "optimizer": adam.state[weight]["exp_avg_sq"],
        }[where]
        tensor.view(-1)[1] = value
        state.meter.add(1, {"loss": torch.tensor(0.5)}, ["the frame"])
        for save in (
            lambda: state.save(tmp_path / "last.pt", 2),
            lambda: state.save_if_best(tmp_path / "best.pt", 2, 0.5),
        ):
            with pytest.raises(
                FloatingPointError, match=r"After step 2, 1 tensors(.|\n)*step 1: .*0\.5.*the frame"
            ):
                save()
        assert read_checkpoint(tmp_path / "last.pt")["step"] == 1
        assert not (tmp_path / "best.pt").exists()

    def test_in_a_loss(self, tmp_path):
        state, *_ = self.state(tmp_path)
        state.meter.add(1, {"loss": torch.tensor(float("nan"))}, ["the frame"])
        with pytest.raises(
            FloatingPointError, match=r"Step 1 gave losses that are not finite(.|\n)*the frame"
        ):
            state.save(tmp_path / "last.pt", 2)
        assert read_checkpoint(tmp_path / "last.pt")["step"] == 1


def test_a_checkpoint_of_format_1_is_read_in_the_words_of_today(tmp_path):
    """Parts, keys and settings have their new names, and values that were renamed as well."""
    old = {
        "format": "bisenet-domain-adaptation 1",
        "parts": {"model": {}, "teacher": {}, "confidence": {"sums": torch.ones(2)}},
        "deployed": "teacher",
        "cityscapes_images": ["a"],
        "settings": {
            "confidence_per": "class",
            "target_images": ["x/*.png"],
            "target": "1 images, abc",
            "pixel_weights": "hard",
            "domain_batches": "separate",
            "lr": 0.1,
        },
        "step": 3,
    }
    torch.save(old, tmp_path / "last.pt")
    content = read_checkpoint(tmp_path / "last.pt")
    assert content.pop("parts").keys() == {"model", "teacher", "pseudo_label_weight"}
    assert content == {
        "format": "bisenet-domain-adaptation 2",
        "inference_network": "teacher",
        "seen_images": ["a"],
        "settings": {
            "pseudo_weighting": "class",
            "target": ["x/*.png"],
            "target_fingerprint": "1 images, abc",
            "pixel_weights": "ohem",
            "joint_batch_norm": False,
            "lr": 0.1,
        },
        "step": 3,
    }
