"""scripts.benchmark deployment: rows, ratios, scores, and what was not measured."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scripts.benchmark import deployment as entry
from scripts.benchmark.__main__ import parse_arguments
from tests.helpers.networks import write_checkpoint
from utils.evaluation.metrics import scores
from utils.training.checkpoint import read_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return read_checkpoint(write_checkpoint(tmp_path_factory.mktemp("run") / "last.pt"))


@pytest.fixture
def onnx_network(monkeypatch):
    """ONNX Runtime is not needed: files hold a precision, and give class 0 everywhere."""

    def load(path, device):
        name, precision, *_ = path.name.split(".")
        own = {"require_classes": lambda count: None, "metadata": {"name": name, "step": 7}}
        return SimpleNamespace(precision=precision, **own)

    monkeypatch.setattr(entry, "require_onnx", lambda *packages: None)
    monkeypatch.setattr(entry, "export_onnx", lambda deployed, path, metadata: None)
    monkeypatch.setattr(entry, "OnnxNetwork", load)


@pytest.mark.usefixtures("onnx_network")
def test_every_way_of_this_processor_is_prepared(checkpoint, tmp_path, monkeypatch):
    """bf16 only where the hardware has it, int8 only where a file is given."""
    for precision, count in (("fp32", 3), ("bf16", 4)):
        monkeypatch.setattr(entry, "choose_precision", lambda *_, found=precision: found)
        assert len(entry.prepare_ways(checkpoint, 19, None)) == count
    ways = entry.prepare_ways(checkpoint, 19, tmp_path / "net.int8.onnx")
    first, *_, last = ways
    assert (first, last) == (entry.EAGER, entry.INT8)


@pytest.mark.usefixtures("onnx_network")
def test_a_float_file_given_as_int8_is_refused(checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"holds a network in fp32. Make an int8 file"):
        entry.prepare_ways(checkpoint, 19, tmp_path / "net.fp32.onnx")


@pytest.mark.usefixtures("onnx_network")
def test_an_int8_file_of_another_network_is_refused(checkpoint, tmp_path):
    """By its name or step: one table compares ways to deploy one network."""
    with pytest.raises(ValueError, match=r"exported from other at step 7, .* is net at step 7"):
        entry.prepare_ways(checkpoint, 19, tmp_path / "other.int8.onnx")
    with pytest.raises(ValueError, match=r"net at step 7, --checkpoint is net at step 9"):
        entry.prepare_ways(checkpoint | {"step": 9}, 19, tmp_path / "net.int8.onnx")


def test_data_that_cannot_be_scored_end_before_the_timing(tmp_path, monkeypatch):
    """Which takes minutes."""
    monkeypatch.setattr(entry, "prepare_ways", lambda *_: pytest.fail("timed"))
    file = write_checkpoint(tmp_path / "last.pt")
    words = ["deployment", "--checkpoint", file, "--score-on", tmp_path / "absent"]
    with pytest.raises(FileNotFoundError, match="absent"):
        entry.run(parse_arguments([*map(str, words)]))


def test_the_table_has_ratios_scores_and_gaps():
    """Frames per second of the median, and the median of the ratios of the turns."""
    seconds = {
        "512x1024": {entry.EAGER: [0.4, 0.2, 0.2], entry.INT8: [0.1, 0.1, 0.05]},
        "1024x2048": {entry.EAGER: [2.0], entry.INT8: [0.5]},
    }
    results = entry.summarize(seconds, {entry.EAGER: 31.0})
    assert results[entry.INT8]["512x1024"]["ratio_vs_eager_fp32"] == pytest.approx(4)
    assert results[entry.INT8]["1024x2048"]["frames_per_second"] == pytest.approx(2)
    table = entry.results_table(results, list(seconds)).splitlines()
    cells = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in table}
    assert [cell.strip() for cell in cells[entry.EAGER]] == ["5.00", "1.0", "0.50", "1.0", "31.00"]
    assert cells[entry.INT8][-1].strip() == "not measured"
    assert {cell.strip() for cell in cells["TensorRT"]} == {"not measured"}


def test_scores_are_those_of_eval(cityscapes_root, checkpoint):
    """One confusion matrix over the labelled images."""
    from dataset.class_set_file import recorded_class_set

    class_set = recorded_class_set(checkpoint)
    images = entry.scored_images(cityscapes_root, class_set)
    found = entry.miou(lambda x: torch.zeros(x.shape[:3], dtype=torch.uint8), images, 19)
    matrix = np.zeros((19, 19))
    for frame in images:
        label = images.label_format.read_train_ids(frame.label)
        matrix[:, 0] += np.bincount(label[label < 19], minlength=19)
    assert found == pytest.approx(100 * scores(matrix).miou)


def test_a_number_of_images_needs_labels():
    args = parse_arguments(["deployment", "--checkpoint", "last.pt", "--images", "3"])
    with pytest.raises(ValueError, match="--images limits --score-on"):
        entry.run(args)
