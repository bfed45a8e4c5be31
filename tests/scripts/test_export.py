"""scripts/export: an ONNX file agrees with its checkpoint, or is not written."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset.image_io import read_image
from model.inference.exported_network import OnnxNetwork, ProgramNetwork, require_onnx
from model.preprocessing import INPUT_CONVENTIONS
from scripts.export import __main__ as entry
from scripts.export import verification
from tests.conftest import scene
from tests.helpers.exported import classes, predicted_train_ids
from tests.helpers.networks import write_checkpoint
from utils.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.usefixtures("narrow_networks")

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _needs_onnx():
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="optional: pip install -r requirements-export.txt")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run") / "last.pt")


@pytest.fixture(scope="module")
def exported(checkpoint) -> Path:
    run(checkpoint, "--output", checkpoint.parent / "net.onnx")
    return checkpoint.parent / "net.onnx"


def run(*words) -> None:
    entry.main(entry.parse_arguments([*map(str, words)]))


@pytest.mark.parametrize("shape", [(1, 64, 96), (3, 64, 96), (2, 33, 101), (1, 5, 31)])
def test_any_batch_and_size(checkpoint, exported, shape):
    """The trainIds of the checkpoint, up to rounding."""
    images = torch.tensor(np.stack([scene(seed, shape[1:])[0] for seed in range(shape[0])]))
    expected = classes(checkpoint, images)
    assert len(np.unique(expected)) > 3
    found = OnnxNetwork(exported, CPU)(images.numpy())
    assert found.dtype == np.uint8
    assert (found != expected).mean() < 1e-3


def test_real_frames(exported, checkpoint, real_data):
    """The trainIds of the checkpoint for a frame of Cityscapes."""
    path = next((real_data / "frames/cityscapes/leftImg8bit/val").rglob("*.png"))
    image = read_image(path)[:512, :512]
    found = OnnxNetwork(exported, CPU)(image[None])
    assert (found != classes(checkpoint, torch.tensor(image)[None])).mean() < 1e-3


@pytest.mark.slow  # test_export_program.py has the same law
def test_normalization_outside_the_graph(checkpoint, exported, tmp_path):
    """--without-normalization: a float input; OnnxNetwork normalizes."""
    run(checkpoint, "--output", tmp_path / "net.onnx", "--without-normalization")
    images = np.stack([scene(seed, (64, 96))[0] for seed in range(2)])
    part = OnnxNetwork(tmp_path / "net.onnx", CPU)
    assert part.session.get_inputs()[0].type == "tensor(float)"
    assert (part(images) != OnnxNetwork(exported, CPU)(images)).mean() < 1e-3


def test_argmax_outside_the_graph_and_bgr_input(tmp_path):
    """--without-argmax: a float output; OnnxNetwork takes the argmax."""
    checkpoint = write_checkpoint(tmp_path / "last.pt")
    content = read_checkpoint(checkpoint)
    torch.save(content | {"input": INPUT_CONVENTIONS["caffe_bgr"].as_dict()}, checkpoint)
    run(checkpoint, "--output", tmp_path / "net.onnx", "--without-argmax")
    part = OnnxNetwork(tmp_path / "net.onnx", CPU)
    assert part.session.get_outputs()[0].type == "tensor(float)"
    images = torch.tensor(scene(0, (64, 96))[0])[None]
    assert (part(images.numpy()) != classes(checkpoint, images)).mean() < 1e-3


def test_predict_takes_the_file_by_its_suffix(checkpoint, exported, tmp_path):
    """scripts.predict gives the labels of the checkpoint."""
    expected = predicted_train_ids(checkpoint, (64, 96), tmp_path / "pt")
    found = predicted_train_ids(exported, (64, 96), tmp_path / "onnx")
    assert found.shape == expected.shape == (64, 96)
    assert (found != expected).mean() < 1e-3


def test_a_file_carries_what_its_checkpoint_learned_from(tmp_path):
    """eval.py says of an exported file what it says of the checkpoint."""
    origin = {
        "seen_images": ["a"],
        "labelled_images": ["a"],
        "unknown_weights": ["x.pth"],
        "chosen_with_labels": True,
    }
    checkpoint = write_checkpoint(tmp_path / "last.pt", **origin)
    run(checkpoint, "--format", "torch", "--output", tmp_path / "net.pt2")
    metadata = ProgramNetwork(tmp_path / "net.pt2", CPU).metadata
    assert {key: metadata.get(key) for key in origin} == origin


def test_a_file_that_disagrees_is_not_written(exported, tmp_path, monkeypatch):
    """The comparison with the checkpoint comes before the output."""
    other = write_checkpoint(tmp_path / "other.pt", seed=1)
    monkeypatch.setattr(
        verification, "export_onnx", lambda _network, path, _: shutil.copy(exported, path)
    )
    with pytest.raises(ValueError, match=r"does not agree with .*Nothing was written"):
        run(other, "--output", tmp_path / "net.onnx")
    assert not list(tmp_path.glob("*.onnx"))


def test_another_class_count_is_refused(exported):
    """The metadata of the file tell the number of classes."""
    with pytest.raises(ValueError, match="has 19 classes; expected 11"):
        OnnxNetwork(exported, CPU).require_classes(11)


def test_files_that_were_not_exported_here_are_refused(tmp_path):
    """Damaged and absent files, and ONNX files of other networks."""
    import onnx

    (tmp_path / "damaged.onnx").write_bytes(b"no onnx")
    with pytest.raises(ValueError, match=r"damaged.onnx cannot be loaded"):
        OnnxNetwork(tmp_path / "damaged.onnx", CPU)
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    opsets = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ValueError, match=r"Expected a file made by: python -m scripts.export"):
        OnnxNetwork(tmp_path / "other.onnx", CPU)
    with pytest.raises(FileNotFoundError, match="No ONNX file"):
        OnnxNetwork(tmp_path / "absent.onnx", CPU)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_cuda_that_onnxruntime_cannot_start(exported, monkeypatch):
    """It would go on without it: --device cuda never computes on the CPU in silence."""
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    if providers[0] in pytest.importorskip("onnxruntime").get_available_providers():
        pytest.skip("this one may start it")
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: providers)
    with pytest.raises(ValueError, match=r"could not start its CUDAExecutionProvider"):
        OnnxNetwork(exported, torch.device("cuda"))


def test_an_output_that_cannot_be_used_is_refused(checkpoint, tmp_path, capsys):
    """An output below a file, or with another suffix."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Cannot write into"):
        run(checkpoint, "--output", tmp_path / "file/net.onnx")
    with pytest.raises(SystemExit):
        run(checkpoint, "--output", tmp_path / "net.bin")
    assert "should end in .onnx" in capsys.readouterr().err


def test_missing_packages_are_named():
    """The error tells what to install."""
    with pytest.raises(ValueError, match=r"ONNX needs absent_package.*requirements-export.txt"):
        require_onnx("absent_package")
