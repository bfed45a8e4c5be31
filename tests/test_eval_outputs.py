"""eval.py as a command: scores, saved predictions, pictures, and what it refuses."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official

import eval as entry
from dataset.cityscapes import cityscapes
from dataset.image_io import read_image
from dataset.label_io import read_label
from dataset.labels import CLASS_NAMES, TRAIN_ID_OF
from model.inference.predictor import load_predictor
from model.loading import load_network
from tests.helpers.networks import write_checkpoint
from tests.helpers.trees import write_camvid
from utils.evaluation.metrics import confusion_matrix, scores
from utils.evaluation.predictions import PredictionFiles, prediction_files
from utils.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.usefixtures("narrow_networks")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run") / "last.pt")


def run(*words) -> None:
    entry.main(entry.parse_arguments([*map(str, words), "--workers", "0", "--device", "cpu"]))


def test_the_official_script_confirms_the_saved_predictions(
    checkpoint, cityscapes_root, tmp_path, monkeypatch
):
    """The official evaluation of the saved predictions gives our numbers."""
    run(
        checkpoint,
        "--cityscapes",
        cityscapes_root,
        "--save-predictions",
        tmp_path / "predictions",
        "--json",
        tmp_path / "scores.json",
    )
    truths = sorted(map(str, cityscapes_root.glob("gtFine/val/*/*_gtFine_labelIds.png")))
    for name, value in {
        "evalInstLevelScore": False,
        "JSONOutput": False,
        "quiet": True,
        "predictionWalk": None,
    }.items():
        monkeypatch.setattr(official.args, name, value)
    monkeypatch.setattr(official.args, "predictionPath", str(tmp_path / "predictions"))
    predictions = [official.getPrediction(official.args, truth) for truth in truths]
    result = official.evaluateImgLists(predictions, truths, official.args)
    row = json.loads((tmp_path / "scores.json").read_text())["rows"][0]
    official_iou = [result["classScores"][name] for name in CLASS_NAMES]
    assert sum(iou > 0.01 for iou in official_iou) > 3
    np.testing.assert_allclose(row["iou"], official_iou, rtol=0, atol=1e-9)
    assert row["miou"] == pytest.approx(result["averageScoreClasses"], abs=1e-9)
    assert cv2.imread(predictions[0], cv2.IMREAD_UNCHANGED).shape == (64, 128)


def test_scores_are_those_of_the_plain_network(checkpoint, cityscapes_root, tmp_path):
    """Folding, layout and the way of counting change nothing in float32, and bf16 next to
    nothing.
    """
    matrix = 0
    model, normalize = load_network(read_checkpoint(checkpoint))
    listing = cityscapes(cityscapes_root, "val")
    for frame in listing:
        with torch.inference_mode():
            prediction = (
                model(normalize(torch.tensor(read_image(frame.image))[None]))
                .logits.softmax(1)
                .argmax(1)[0]
            )
        matrix = matrix + confusion_matrix(TRAIN_ID_OF[read_label(frame.label)], prediction)
    for precision, tolerance in (("fp32", 1e-4), ("bf16", 0.01)):
        run(
            checkpoint,
            "--cityscapes",
            cityscapes_root,
            "--precision",
            precision,
            "--json",
            tmp_path / "scores.json",
        )
        row = json.loads((tmp_path / "scores.json").read_text())["rows"][0]
        assert row["miou"] == pytest.approx(scores(matrix).miou, abs=tolerance)
        assert abs(np.array(row["matrix"]) - matrix.numpy()).sum() <= tolerance * 10 * int(
            matrix.sum()
        )


def test_pictures_show_the_mistakes(checkpoint, cityscapes_root, tmp_path):
    """The confusion matrix, and four columns for each of the worst images."""
    run(checkpoint, "--cityscapes", cityscapes_root, "--pictures", tmp_path / "pictures")
    shapes = {path.name: cv2.imread(str(path)).shape for path in (tmp_path / "pictures").iterdir()}
    assert shapes.keys() == {"confusion_matrix.png", "worst_images.png"}
    assert shapes["worst_images.png"][1] > 4 * 500  # image, prediction, ground truth, mistakes


def test_augmented_scores_carry_their_name(checkpoint, cityscapes_root, capsys):
    """Scores with test-time augmentation are not compared with others by mistake."""
    run(checkpoint, "--cityscapes", cityscapes_root, "--tta", "flip")
    printed = capsys.readouterr().out
    assert "| net (flip)" in printed
    assert "WARNING: net (flip) was scored with test-time augmentation" in printed


def test_hidden_labels_give_predictions_and_no_scores(
    checkpoint, cityscapes_root, tmp_path, capsys
):
    """The split test: no label is opened, its gtFine folder does not exist."""
    (cityscapes_root / "leftImg8bit/val").rename(cityscapes_root / "leftImg8bit/test")
    run(
        checkpoint,
        "--cityscapes",
        cityscapes_root,
        "--split",
        "test",
        "--save-predictions",
        tmp_path / "out",
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"lindau_{n:06}_000019_pred_labelIds.png" for n in range(3)
    ]
    assert "mIoU" not in capsys.readouterr().out


def test_predictions_of_other_evaluations_are_noted(tmp_path, capsys):
    """They would be scored or submitted with the new ones; those of the same images are not."""
    files = PredictionFiles(tmp_path, ["a/1", "a/2"], "labelIds", np.arange(256, dtype=np.uint8))
    files.save(0, torch.zeros(4, 4, dtype=torch.uint8))
    files.note_others()
    assert capsys.readouterr().out == ""
    (tmp_path / "other-last").mkdir()
    old = tmp_path / "other-last/1_pred_labelIds.png"
    old.write_bytes(b"")
    files.note_others()
    assert f"holds 1 other PNGs, first {old}" in capsys.readouterr().out


def test_whether_a_split_has_labels_is_told_by_its_layout(checkpoint, tmp_path, capsys):
    """The split test of CamVid has labels; train of a data set without them has none."""
    write_camvid(tmp_path / "camvid", 2)
    for kind in ("", "annot"):
        (tmp_path / f"camvid/val{kind}").rename(tmp_path / f"camvid/test{kind}")
    words = ("--target", tmp_path / "camvid", "--layout", "camvid", "--split", "test")
    run(checkpoint, *words, "--merge", "cityscapes19-to-camvid11")
    assert "mIoU" in capsys.readouterr().out
    layout = tmp_path / "plain.toml"
    layout.write_text(
        'name = "plain"\ntitle = "Plain"\n\n[splits.a]\nimages = "a/{key}.png"\n'
        '[splits.b]\nimages = "b/{key}.png"\n'
    )
    with pytest.raises(ValueError, match="--split b has no public labels to score with"):
        run(checkpoint, "--target", tmp_path, "--layout", layout, "--split", "b")


def test_predictions_of_equal_names_are_kept_apart():
    """frame0000 of two drives: below their folders, so that none overwrites the other."""
    names = ["0/frame0000_leftImg8bit", "1/frame0000_leftImg8bit", "1/frame0001_leftImg8bit"]
    assert prediction_files(names) == [
        *("0/frame0000_pred_labelIds.png", "1/frame0000_pred_labelIds.png"),
        "frame0001_pred_labelIds.png",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no public labels to score with"),
        (("--save-predictions", "x", "--json", "y"), "which --json would need"),
        (("--save-predictions", "x", "--classes", "road"), "which --classes would need"),
    ],
)
def test_hidden_labels_refuse_scores(checkpoint, cityscapes_root, words, message):
    with pytest.raises(ValueError, match=message):
        run(checkpoint, "--cityscapes", cityscapes_root, "--split", "test", *words)


def test_an_unwritable_folder_is_an_error_before_the_scoring(checkpoint, cityscapes_root, tmp_path):
    """The error comes before the scoring, which can take hours."""
    (tmp_path / "file").write_text("")
    for flag in ("--save-predictions", "--pictures"):
        with pytest.raises(OSError, match="Cannot write into .*choose another"):
            run(checkpoint, "--cityscapes", cityscapes_root, flag, tmp_path / "file/below")
    with pytest.raises(OSError, match="Cannot write into"):
        run(checkpoint, "--cityscapes", cityscapes_root, "--json", tmp_path / "file/scores.json")


def test_the_file_of_scores_is_tested_first(checkpoint, cityscapes_root, tmp_path, monkeypatch):
    """A folder, and the checkpoint itself, are refused before the scoring."""
    monkeypatch.setattr(entry, "evaluate_model", lambda *given: pytest.fail("it was scored"))
    for path, message in ((tmp_path, "it is a folder"), (checkpoint, "it is the input")):
        with pytest.raises(OSError, match=message):
            run(checkpoint, "--cityscapes", cityscapes_root, "--json", path)
    read_checkpoint(checkpoint)


def test_checkpoints_of_one_name_would_overwrite_each_other(checkpoint, cityscapes_root, tmp_path):
    with pytest.raises(ValueError, match="one by one"):
        run(checkpoint, checkpoint, "--cityscapes", cityscapes_root, "--pictures", tmp_path)


def test_a_checkpoint_of_other_classes_is_refused(cityscapes_root, tmp_path):
    with pytest.raises(ValueError, match="has 5 classes; 19 are expected"):
        run(write_checkpoint(tmp_path / "five.pt", num_classes=5), "--cityscapes", cityscapes_root)


def test_exported_files_are_scored_like_their_checkpoint(
    checkpoint, cityscapes_root, tmp_path, monkeypatch
):
    """The file records name, step and images of its checkpoint; the row tells the engine."""
    metadata = {key: value for key, value in read_checkpoint(checkpoint).items() if key != "parts"}
    predictor = load_predictor(read_checkpoint(checkpoint), 19, torch.device("cpu"))

    class Exported:
        def __init__(self, path, device):
            self.metadata, self.precision = metadata, "int8"

        def __call__(self, images):
            return predictor(torch.from_numpy(images)).numpy()

    monkeypatch.setitem(entry.EXPORTED_NETWORKS, ".onnx", Exported)
    rows = []
    for path, words in (
        (checkpoint, ["--precision", "fp32"]),
        (tmp_path / "net.int8.onnx", ["--precision", "auto"]),
    ):
        run(path, "--cityscapes", cityscapes_root, "--json", tmp_path / "scores.json", *words)
        rows += json.loads((tmp_path / "scores.json").read_text())["rows"]
    expected, found = rows
    assert (expected["precision"], expected["engine"]) == ("fp32", "eager")
    assert (found["precision"], found["engine"]) == ("int8", "onnx")
    assert {key for key in found if found[key] != expected[key]} == {
        "checkpoint",
        "precision",
        "engine",
    }
    with pytest.raises(ValueError, match="--tta flip: .* is an exported file"):
        run(path, "--cityscapes", cityscapes_root, "--tta", "flip", "--precision", "auto")
    del metadata["seen_images"]
    with pytest.raises(ValueError, match="does not record seen_images .* Export it again"):
        run(path, "--cityscapes", cityscapes_root, "--precision", "auto")
