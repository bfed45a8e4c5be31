"""scripts/export --int8: a file that loses little, or none."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from dataset.cityscapes import cityscapes
from dataset.class_set_file import load_class_set
from dataset.target import scored_images
from model.inference.exported_network import OnnxNetwork
from scripts.export import __main__ as entry
from scripts.export import int8
from scripts.export.int8 import Comparison
from tests.conftest import scene
from tests.helpers.exported import classes, predicted_train_ids
from tests.helpers.networks import write_checkpoint

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _needs_onnx():
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="optional: pip install -r requirements-export.txt")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run") / "last.pt")


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    for seed in range(3):
        Image.fromarray(scene(seed, (64, 96))[0]).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def int8_file(checkpoint, frames) -> Path:
    """Of a network with random weights, whose classes change easily."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "MOST_CHANGED", 1.0)
        patch.setattr(int8, "choose_float_layers", lambda trial: [])
        run(checkpoint, "--int8", "--calibrate-on", frames)
    return checkpoint.parent / "last.int8.onnx"


def run(*words) -> None:
    entry.main(entry.parse_arguments([*map(str, words)]))


def test_the_file_lies_beside_the_checkpoint_and_tells_all(int8_file, frames):
    """Its metadata are those of a float32 file, and what it was calibrated on: seen images."""
    metadata = OnnxNetwork(int8_file, CPU).metadata
    assert metadata["precision"] == "int8"
    assert metadata["float32_layers"] == []
    assert metadata["seen_images"] == ["0", "1", "2"]
    assert metadata["classes"][0] == "road"
    assert metadata["calibrated_on"]["given"] == [str(frames)]
    assert metadata["calibrated_on"]["fingerprint"].startswith("3 images, ")
    assert metadata["calibrated_on"]["sizes"] == [[64, 96]]


def test_predict_takes_the_int8_file(int8_file, checkpoint, tmp_path):
    """scripts.predict gives nearly the labels of the checkpoint."""
    found = predicted_train_ids(int8_file, (64, 96), tmp_path / "int8")
    expected = classes(checkpoint, torch.tensor(scene(0, (64, 96))[0])[None])[0]
    assert found.shape == (64, 96)
    assert (found != expected).mean() < 0.3


def test_too_many_changed_pixels_are_refused(int8_file, checkpoint, frames, tmp_path, monkeypatch):
    """Without labels, more than 3 %: nothing is written."""
    loss = int8.compare(*[OnnxNetwork(int8_file, CPU)] * 2, entry.some_images([frames], 9))
    assert loss == Comparison(0, None, 3)
    with pytest.raises(ValueError, match=r"get another class on 3 images, more than 3 %.*Nothing"):
        int8.require_little_loss(loss._replace(changed=0.031), 1.0)
    assert "3.00 % of the pixels" in int8.require_little_loss(loss._replace(changed=0.03), 1.0)

    monkeypatch.setattr(entry, "verified_export", lambda *_: "")
    refuse = ValueError("refused")

    def quantize_export(*_):
        raise refuse

    monkeypatch.setattr(entry, "quantize_export", quantize_export)
    with pytest.raises(ValueError, match="refused"):
        run(checkpoint, "--int8", "--calibrate-on", frames, "--output", tmp_path / "a.int8.onnx")
    assert not list(tmp_path.glob("*.onnx"))


def test_labels_decide_where_there_are_some():
    """At most --most-lost points of mIoU; the number of changed pixels is only told."""
    good = int8.require_little_loss(Comparison(0.2, (50.0, 49.2), 250), 1.0)
    assert good.startswith("mIoU 50.00 % in float32, 49.20 % in int8 (-0.80) on 250 labelled")
    for after in (48.9, float("nan")):
        with pytest.raises(ValueError, match=r"points of mIoU .*more than --most-lost 1\."):
            int8.require_little_loss(Comparison(0.0, (50.0, after), 250), 1.0)


def test_both_networks_are_scored_on_the_labels(int8_file, cityscapes_root):
    """The mIoU is that of eval.py: one confusion matrix over all images."""
    images = scored_images(cityscapes_root, load_class_set("cityscapes19"))
    assert images.names == cityscapes(cityscapes_root, "val").names
    network = OnnxNetwork(int8_file, CPU)
    found = int8.compare(network, network, images)
    assert found.changed == 0
    assert found.miou[0] == found.miou[1] > 0


def test_calibration_images_of_another_size_are_refused(frames, cityscapes_root, tmp_path):
    """Than those that are scored."""
    calibration = entry.some_images([str(frames)], 2)
    assert calibration.names == ["0", "2"]  # evenly spaced
    Image.fromarray(scene(0, (48, 72))[0]).save(tmp_path / "small.png")
    other = entry.some_images([str(tmp_path / "small.png")], 2)
    with pytest.raises(ValueError, match=r"other sizes \(such as 64x96\) .* \(such as 48x72\)"):
        int8.check_sizes(calibration, other)
    int8.check_sizes(calibration, calibration)


@pytest.mark.usefixtures("narrow_networks")
def test_small_images_get_a_border_in_calibration(tmp_path, monkeypatch):
    """As in every prediction; a label map that is the only file named is an image."""
    monkeypatch.setattr(int8, "MOST_CHANGED", 1.0)
    monkeypatch.setattr(int8, "choose_float_layers", lambda trial: [])
    Image.fromarray(scene(0, (16, 24))[1]).save(tmp_path / "a_gtFine_labelIds.png")
    image = tmp_path / "a_gtFine_labelIds.png"
    checkpoint, output = write_checkpoint(tmp_path / "last.pt"), tmp_path / "a.int8.onnx"
    run(checkpoint, "--int8", "--calibrate-on", image, "--check-on", image, "--output", output)
    assert OnnxNetwork(output, CPU).metadata["calibrated_on"]["sizes"] == [[16, 24]]


def test_no_calibration_image_is_an_error(checkpoint, tmp_path):
    """Absent files, and folders without images."""
    with pytest.raises(FileNotFoundError, match="Nothing at"):
        run(checkpoint, "--int8", "--calibrate-on", tmp_path / "absent/*.png")
    with pytest.raises(ValueError, match="No image at"):
        run(checkpoint, "--int8", "--calibrate-on", tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["last.pt", "--int8"], "--int8 needs images to measure activations on"),
        (["last.pt", "--calibrate-on", "x"], "--calibrate-on: without effect without --int8"),
        (["last.pt", "--score-on", "x"], "--score-on: without effect without --int8"),
        (["net.onnx", "--int8", "--calibrate-on", "x"], "net.onnx is an exported file"),
        (["net.int8.onnx"], "net.int8.onnx is an exported file"),
        (["last.pt", "--output", "a.int8.onnx"], "such names are for int8; add --int8"),
        (["last.pt", "--int8", "--calibrate-on", "x", "--output", "a.onnx"], "end in .int8.onnx"),
        (["last.pt", "--int8", "--calibrate-on", "x", "--without-argmax"], "leave out --format"),
        (["last.pt", "--int8", "--calibrate-on", "x", "--most-lost", "2"], "add --score-on"),
    ],
)
def test_options_that_do_not_fit_together(words, message, capsys):
    with pytest.raises(SystemExit):
        entry.parse_arguments(words)
    assert message in " ".join(capsys.readouterr().err.split())
