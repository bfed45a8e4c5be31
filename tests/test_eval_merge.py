"""eval.py --merge: a checkpoint of one class set on data of another."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import eval as entry
from dataset.image_io import read_image
from dataset.labels import LABEL_ID_OF
from dataset.merge import load_merge
from model.loading import load_network
from tests.helpers.networks import write_checkpoint
from tests.helpers.trees import write_camvid
from utils.evaluation.metrics import confusion_matrix
from utils.report.scored_rows import _protocol
from utils.training.checkpoint import read_checkpoint

MERGE = "cityscapes19-to-camvid11"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run") / "last.pt")


@pytest.fixture(scope="module")
def camvid_root(tmp_path_factory) -> Path:
    return write_camvid(tmp_path_factory.mktemp("camvid"), 2)


def run(*words) -> None:
    argv = [*map(str, words), "--workers", "0", "--device", "cpu", "--precision", "fp32"]
    entry.main(entry.parse_arguments(argv))


def test_probabilities_of_the_network_are_summed(checkpoint, camvid_root, tmp_path, capsys):
    """The matrix is that of softmax, sum over merged classes, argmax; the table names the merge."""
    run(checkpoint, "--target", camvid_root, "--merge", MERGE, "--json", tmp_path / "s.json")
    model, normalize = load_network(read_checkpoint(checkpoint))
    merge, matrix = load_merge(MERGE), 0
    for number in range(2):
        image = torch.tensor(read_image(camvid_root / f"val/{number:06}.png"))[None]
        with torch.inference_mode():
            probabilities = model(normalize(image)).logits.softmax(1)
        merged = [
            probabilities[:, [merge.old.names.index(member) for member in members]].sum(1)
            for members in merge.members.values()
        ]
        label = np.asarray(Image.open(camvid_root / f"valannot/{number:06}.png"))
        label = np.where(label == 11, 255, label)
        matrix = matrix + confusion_matrix(label, torch.stack(merged, 1).argmax(1)[0], 11)
    content = json.loads((tmp_path / "s.json").read_text())
    difference = np.abs(np.array(content["rows"][0]["matrix"]) - matrix.numpy()).sum()
    assert difference <= 1e-4 * int(matrix.sum())
    assert content["merge"]["name"] == MERGE
    assert content["class_set"]["name"] == "camvid11"
    printed = capsys.readouterr().out
    assert f"Merge {MERGE}: probabilities of the cityscapes19 network are summed" in printed
    assert "car = car + truck + bus + train" in printed
    assert "(published)" not in printed
    assert f"class set camvid11, merge {MERGE}" in _protocol(content)


def test_predictions_are_saved_in_either_set(checkpoint, camvid_root, tmp_path):
    """In the classes of the data, or in the network's: then they are those without a merge."""
    words = (checkpoint, "--target", camvid_root, "--merge", MERGE, "--save-predictions")
    run(*words, tmp_path / "data")
    run(*words, tmp_path / "network", "--predicted-classes", "network")
    files = [sorted((tmp_path / name).iterdir()) for name in ("data", "network")]
    assert [path.name for path in files[0]] == [f"{n:06}_pred_trainIds.png" for n in range(2)]
    assert [path.name for path in files[1]] == [f"{n:06}_pred_labelIds.png" for n in range(2)]
    model, normalize = load_network(read_checkpoint(checkpoint))
    image = torch.tensor(read_image(camvid_root / "val/000000.png"))[None]
    with torch.inference_mode():
        own = model(normalize(image)).logits.argmax(1)[0].numpy()
    saved = np.asarray(Image.open(files[1][0]))
    assert (saved == LABEL_ID_OF[own]).mean() > 0.999
    merged = np.asarray(Image.open(files[0][0]))
    assert merged.max() < 11
    after = load_merge(MERGE).matrix().argmax(1)[own]
    assert 0 < (merged != after).mean() < 0.5, "the sum was taken after the argmax"


def test_a_split_without_labels_is_predicted_merged(checkpoint, cityscapes_root, tmp_path):
    """Predictions of the split test can be saved in merged classes, too."""
    (cityscapes_root / "leftImg8bit/val").rename(cityscapes_root / "leftImg8bit/test")
    words = ("--split", "test", "--merge", MERGE, "--save-predictions", tmp_path / "out")
    run(checkpoint, "--target", cityscapes_root, *words)
    assert len(list((tmp_path / "out").glob("*_pred_trainIds.png"))) == 3


def test_a_merge_from_other_classes_is_refused(camvid_root, tmp_path):
    """The network's classes and those of the merge are named."""
    (tmp_path / "merge.toml").write_text(
        'from = "binary"\nto = "binary"\n[merge]\nbackground = "background"\n'
        'foreground = "foreground"\n'
    )
    checkpoint = write_checkpoint(tmp_path / "last.pt")
    with pytest.raises(ValueError, match="last.pt has the 19 classes of cityscapes19"):
        run(checkpoint, "--target", camvid_root, "--merge", tmp_path / "merge.toml")


def test_flags_that_would_do_nothing_are_refused(checkpoint, camvid_root, capsys):
    words = [str(checkpoint), "--target", str(camvid_root), "--predicted-classes", "network"]
    for more in ([], ["--merge", MERGE], ["--save-predictions", "out"]):
        with pytest.raises(SystemExit):
            entry.parse_arguments([*words, *more])
    assert "without --merge and --save-predictions" in capsys.readouterr().err
