"""scripts/export --format torch: a program agrees with its checkpoint, or is not written."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.export.passes
from PIL import Image

from model.inference.exported_network import ProgramNetwork
from model.preprocessing import INPUT_CONVENTIONS
from scripts.export import __main__ as entry
from scripts.export import verification
from tests.conftest import scene
from tests.helpers.exported import classes, predicted_train_ids
from tests.helpers.networks import write_checkpoint
from utils.benchmark import memory
from utils.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.usefixtures("narrow_networks")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run") / "last.pt")


@pytest.fixture(scope="module")
def exported(checkpoint) -> Path:
    run(checkpoint, "--output", checkpoint.parent / "net.pt2")
    return checkpoint.parent / "net.pt2"


def run(*words) -> None:
    entry.main(entry.parse_arguments([*map(str, words), "--format", "torch"]))


@pytest.mark.parametrize("shape", [(1, 64, 96), (3, 64, 96), (2, 33, 101), (1, 150, 33)])
def test_any_batch_and_size(checkpoint, exported, shape):
    """The trainIds of the checkpoint, up to rounding."""
    images = torch.tensor(np.stack([scene(seed, shape[1:])[0] for seed in range(shape[0])]))
    expected = classes(checkpoint, images)
    assert len(np.unique(expected)) > 3
    found = ProgramNetwork(exported, CPU)(images.numpy())
    assert found.dtype == np.uint8
    assert (found != expected).mean() < 1e-3


def test_normalization_and_argmax_outside_the_graph(tmp_path):
    """ProgramNetwork normalizes and takes the argmax."""
    checkpoint = write_checkpoint(tmp_path / "last.pt")
    content = read_checkpoint(checkpoint)
    torch.save(content | {"input": INPUT_CONVENTIONS["caffe_bgr"].as_dict()}, checkpoint)
    run(checkpoint, "--output", tmp_path / "net.pt2", "--without-argmax", "--without-normalization")
    part = ProgramNetwork(tmp_path / "net.pt2", CPU)
    assert part.run(np.zeros((1, 3, 64, 96), np.float32)).shape == (1, 19, 64, 96)
    images = torch.tensor(scene(0, (64, 96))[0])[None]
    assert (part(images.numpy()) != classes(checkpoint, images)).mean() < 1e-3


def test_a_program_moves_to_a_numbered_gpu(exported, monkeypatch):
    """Older torch stops at run time where a program says "cuda" and its input "cuda:0"."""
    places = []

    def record(program, place):
        places.append(str(place))
        return program

    monkeypatch.setattr(torch.export.passes, "move_to_device_pass", record)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    for device in ("cuda", "cuda:0"):
        ProgramNetwork(exported, torch.device(device))
    assert places == ["cuda:1", "cuda:0"]


def test_predict_takes_the_file_by_its_suffix(checkpoint, exported, tmp_path):
    """scripts.predict reads the program, also for an image smaller than its smallest input."""
    expected = predicted_train_ids(checkpoint, (20, 96), tmp_path / "pt")
    found = predicted_train_ids(exported, (20, 96), tmp_path / "pt2")
    assert found.shape == expected.shape == (20, 96)


def test_a_file_that_disagrees_is_not_written(exported, tmp_path, monkeypatch):
    """The comparison with the checkpoint comes before the output."""
    other = write_checkpoint(tmp_path / "other.pt", seed=1)

    def copy_exported(_network, path, _metadata) -> None:
        shutil.copy(exported, path)

    monkeypatch.setattr(verification, "export_program", copy_exported)
    with pytest.raises(ValueError, match=r"does not agree with .*Nothing was written"):
        run(other, "--output", tmp_path / "net.pt2")
    assert not list(tmp_path.glob("*.pt2"))


def test_files_that_were_not_exported_here_are_refused(exported, tmp_path):
    """Other classes, damaged and absent files, and programs of other networks."""
    with pytest.raises(ValueError, match="has 19 classes; expected 11"):
        ProgramNetwork(exported, CPU).require_classes(11)
    (tmp_path / "damaged.pt2").write_bytes(exported.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"damaged.pt2 cannot be loaded"):
        ProgramNetwork(tmp_path / "damaged.pt2", CPU)
    program = torch.export.export(torch.nn.ReLU(), (torch.zeros(2),))
    torch.export.save(program, tmp_path / "other.pt2")
    with pytest.raises(ValueError, match=r"Expected a file made by: python -m scripts.export"):
        ProgramNetwork(tmp_path / "other.pt2", CPU)
    with pytest.raises(FileNotFoundError, match="No program at"):
        ProgramNetwork(tmp_path / "absent.pt2", CPU)


def test_the_suffix_tells_the_format(checkpoint, tmp_path, capsys):
    """Another suffix than that of the format is a usage error."""
    with pytest.raises(SystemExit):
        run(checkpoint, "--output", tmp_path / "net.onnx")
    assert "--output should end in .pt2" in capsys.readouterr().err


def test_folders_and_patterns_are_compared_on(checkpoint, tmp_path, monkeypatch, capsys):
    """At most CHECKED_IMAGES of them, also such as are smaller than the network's input."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, size in enumerate([(64, 96), (5, 40), (40, 33)]):
        Image.fromarray(scene(number, size)[0]).save(folder / f"{number}.png")
    output = tmp_path / "net.pt2"
    for words in ([folder], [folder / "*.png"], sorted(folder.iterdir())):
        run(checkpoint, "--output", output, "--check-on", *words)
        assert "agrees with net on 3 images" in capsys.readouterr().out
    monkeypatch.setattr(entry, "CHECKED_IMAGES", 2)
    assert [frame.name for frame in entry.some_images([str(folder)], 2)] == ["0", "2"]
    with pytest.raises(FileNotFoundError, match="Nothing at absent"):
        run(checkpoint, "--output", output, "--check-on", "absent.png")


def test_images_too_large_to_compare_on_are_refused(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda device: 1_000_000)
    Image.fromarray(scene(0, (64, 96))[0]).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"x\.png is 64x96 .*Shrink it"):
        run(checkpoint, "--output", tmp_path / "net.pt2", "--check-on", tmp_path)
