import json
import os
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from dataset.cityscapes import cityscapes
from dataset.image_io import read_image
from dataset.label_io import read_label
from dataset.labels import TRAIN_ID_OF
from dataset.loader import LoaderOptions, evaluation_loader
from model.bisenet import BiSeNet
from model.inference.predictor import Predictor
from model.loading import load_network
from tests.conftest import write_cityscapes
from tests.helpers.checkpoints import same_state
from tests.helpers.cli import SMALL, python
from tests.helpers.cli import run_train as run
from tests.helpers.forked import ForkedScript, run_forked
from tests.helpers.narrow import real_backbones
from utils.evaluation.evaluate import evaluate
from utils.evaluation.metrics import scores
from utils.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.usefixtures("narrow_networks")


def test_step_2_leaves_a_run_folder(cityscapes_root, tmp_path):
    folder = run(
        tmp_path,
        "--train-on",
        "cityscapes",
        "--cityscapes",
        cityscapes_root,
        "--max-steps",
        3,
        "--validate-every",
        2,
    )
    last = read_checkpoint(folder / "last.pt")
    assert last["step"] == 3
    assert last["architecture"] == {"num_classes": 19, "backbone": "resnet18"}
    assert len(last["seen_images"]) == 5
    assert read_checkpoint(folder / "best.pt")["chosen_with_labels"] is True
    entry = json.loads((folder / "config.json").read_text())[0]
    assert entry["settings"]["lr"] == 5e-4
    assert entry["device"] == "cpu"
    events = EventAccumulator(str(folder)).Reload()
    assert {"loss/segmentation", "learning_rate", "val/miou"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss/segmentation")] == [1, 2, 3]
    assert {
        "gradient_norm/model",
        "time/data_wait_s",
        "time/compute_s",
        "time/images_per_second",
        "val_iou/road",
    } <= set(events.Tags()["scalars"])
    assert any("hparams" in tag for tag in events.summary_metadata)
    assert len(list(folder.rglob("events*"))) == 1
    assert events.Tags()["images"] == ["train/image_prediction_truth"]


def test_source_only_reads_no_target_file(gta5_root, tmp_path):
    folder = run(tmp_path, "--train-on", "gta5", "--gta5", gta5_root, "--max-steps", 2)
    seen = read_checkpoint(folder / "last.pt")["seen_images"]
    assert seen == [f"gta5::0000{number}" for number in range(1, 7)]
    assert not (folder / "best.pt").exists()


def test_source_only_in_the_targets_colors_opens_no_label(gta5_root, tmp_path):
    target = write_cityscapes(tmp_path / "target", {"train": 2}, labels=False)
    plain = run(tmp_path / "plain", "--train-on", "gta5", "--gta5", gta5_root, "--max-steps", 1)
    lab = run(
        tmp_path / "lab",
        "--train-on",
        "gta5",
        "--gta5",
        gta5_root,
        "--max-steps",
        1,
        "--lab",
        "--cityscapes",
        target,
    )
    assert len(read_checkpoint(lab / "last.pt")["seen_images"]) == 2 + 6
    assert not same_state(plain / "last.pt", lab / "last.pt")


def test_epochs_are_passes_over_the_images(cityscapes_root, tmp_path):
    folder = run(
        tmp_path,
        "--train-on",
        "cityscapes",
        "--cityscapes",
        cityscapes_root,
        "--epochs",
        2,
        "--validate-every",
        0,
    )
    assert read_checkpoint(folder / "last.pt")["step"] == 2 * (5 // 2)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stop_between_changes_nothing_bit_for_bit(cityscapes_root, tmp_path, precision):
    common = [
        "--train-on",
        "cityscapes",
        "--cityscapes",
        cityscapes_root,
        "--schedule-steps",
        6,
        "--precision",
        precision,
    ]
    common += ["--validate-every", 2, "--workers", 1]
    straight = run(tmp_path / "straight", *common, "--max-steps", 3)
    run(tmp_path / "halted", *common, "--max-steps", 2)
    halted = run(tmp_path / "halted", *common, "--max-steps", 3, "--resume", "--workers", 0)
    assert same_state(straight / "last.pt", halted / "last.pt")
    assert same_state(straight / "best.pt", halted / "best.pt")


def test_seeds_matter_and_repeat(cityscapes_root, tmp_path):
    common = [
        "--train-on",
        "cityscapes",
        "--cityscapes",
        cityscapes_root,
        "--max-steps",
        1,
        "--validate-every",
        0,
    ]
    a, b, c = (
        run(tmp_path / name, *common, "--seed", seed)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert same_state(a / "last.pt", b / "last.pt")
    assert not same_state(a / "last.pt", c / "last.pt")


def test_init_starts_from_another_runs_network(cityscapes_root, gta5_root, tmp_path):
    first = run(tmp_path / "first", "--train-on", "gta5", "--gta5", gta5_root, "--max-steps", 1)
    common = [
        "--train-on",
        "cityscapes",
        "--cityscapes",
        cityscapes_root,
        "--max-steps",
        1,
        "--validate-every",
        0,
        "--lr",
        1e-30,
    ]
    second = run(tmp_path / "second", *common, "--init", first / "last.pt")
    one, two = (read_checkpoint(folder / "last.pt")["parts"]["model"] for folder in (first, second))
    assert all(torch.equal(one[name], two[name]) for name, _ in BiSeNet().named_parameters())


def test_recipes_and_explicit_flags():
    needed = ["--train-on", "cityscapes", "--cityscapes", "x"]
    paper, authors = (
        train.parse_arguments([*needed, "--recipe", recipe]) for recipe in ("paper", "authors")
    )
    assert (paper.lr, paper.batch_size, paper.epochs, paper.input, paper.crop) == (
        5e-4,
        4,
        50,
        "imagenet",
        "random",
    )
    assert (authors.input, authors.crop, authors.padding, authors.poly_per) == (
        "unit_rgb",
        "centre",
        "zero",
        "epoch",
    )
    mixed = train.parse_arguments(
        [*needed, "--recipe", "authors", "--input", "imagenet", "--lr", "0.1"]
    )
    assert (mixed.input, mixed.lr, mixed.crop) == ("imagenet", 0.1, "centre")


def test_the_network_can_learn(tmp_path):
    """It overfits four generated scenes."""
    root = write_cityscapes(tmp_path / "data", {"train": 4, "val": 4})
    arguments = [
        "--train-on",
        "cityscapes",
        "--cityscapes",
        root,
        "--scales",
        1.0,
        "--flip",
        0,
        "--crop-size",
        64,
        128,
    ]
    folder = run(
        tmp_path,
        *arguments,
        "--batch-size",
        4,
        "--lr",
        0.02,
        "--max-steps",
        50,
        "--validate-every",
        50,
        "--precision",
        "auto",
    )
    assert read_checkpoint(folder / "last.pt")["best"]["miou"] > 0.8


def varied_window(
    label: np.ndarray, size: tuple[int, int] = (128, 256), least: int = 300
) -> tuple[slice, slice]:
    """The window of labelIds with the most classes, none of them smaller than ``least`` pixels."""
    best = (0, None)
    for top in range(0, label.shape[0] - size[0] + 1, 64):
        for left in range(0, label.shape[1] - size[1] + 1, 64):
            window = (slice(top, top + size[0]), slice(left, left + size[1]))
            counts = np.bincount(TRAIN_ID_OF[label[window]].ravel(), minlength=256)[:19]
            counts = counts[counts > 0]
            if len(counts) > best[0] and counts.min() >= least:
                best = (len(counts), window)
    return best[1]


@pytest.mark.slow
@real_backbones()
def test_the_network_overfits_four_real_frames(real_data, tmp_path):
    """mIoU above 0.8 over the classes present, on a window of each frame, for a CPU's sake."""
    frames = [
        cityscapes(real_data / "frames/cityscapes", split)[index]
        for split, index in (("train", 0), ("train", 1), ("train", 2), ("val", 0))
    ]
    for number, frame in enumerate(frames):
        image, label = read_image(frame.image), read_label(frame.label)
        for pixels, folder, ending in (
            (image, "leftImg8bit", "leftImg8bit"),
            (label, "gtFine", "gtFine_labelIds"),
        ):
            path = tmp_path / f"four/{folder}/train/city/city_{number:06}_000019_{ending}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(pixels[varied_window(label)])).save(path)
    arguments = [
        "--train-on",
        "cityscapes",
        "--cityscapes",
        tmp_path / "four",
        "--scales",
        1.0,
        "--flip",
        0,
        "--precision",
        "auto",
    ]
    arguments += [
        "--crop-size",
        128,
        256,
        "--batch-size",
        4,
        "--lr",
        0.03,
        "--max-steps",
        300,
        "--validate-every",
        0,
        "--log-every",
        50,
    ]
    folder = run(tmp_path, *arguments)
    model, normalize = load_network(read_checkpoint(folder / "last.pt"))
    batches = evaluation_loader(cityscapes(tmp_path / "four", "train"), LoaderOptions(0, False))
    result = evaluate(Predictor(model, normalize, torch.device("cpu")), batches, 19)
    present = [c for c in range(19) if result.matrix[c].sum() > 0]
    assert len(present) >= 12
    assert scores(result.matrix, classes=present).miou > 0.8


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
    def test_a_signal_saves_and_says_how_to_go_on(self, cityscapes_root, tmp_path, number):
        words = ["--train-on", "cityscapes", "--cityscapes", cityscapes_root, "--workers", 1]
        words += ["--output", tmp_path, "--name", "run", "--max-steps", 100_000]
        with ForkedScript("train.py", *SMALL, *words, "--validate-every", 0) as process:
            process.wait_for_line("step 3")
            os.killpg(process.pid, number)  # a scheduler signals the workers too
            assert process.wait(timeout_s=60) == 0, process.stderr
            assert f"Stopped by {number.name}" in process.stdout
            assert "--resume" in process.stdout
        assert read_checkpoint(tmp_path / "run/last.pt")["step"] >= 3

    def test_a_failing_run_ends_and_does_not_wait_for_its_workers(self, cityscapes_root, tmp_path):
        """In an interpreter of its own, which has workers to end when it exits."""
        image = next((cityscapes_root / "leftImg8bit/train").rglob("*.png"))
        image.write_bytes(image.read_bytes()[:-100])  # its header, which is looked at, is whole
        words = ["--train-on", "cityscapes", "--cityscapes", cityscapes_root, "--workers", 2]
        words += ["--output", tmp_path, "--max-steps", 9]
        start = time.monotonic()
        done = subprocess.run(
            [*python(), "train.py", *SMALL, *map(str, words)],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode != 0
        assert "damaged" in done.stderr
        assert time.monotonic() - start < 60


class TestBadInput:
    def refuse(self, tmp_path, match, *arguments):
        with pytest.raises((ValueError, OSError), match=match):
            run(tmp_path, *arguments)

    def test_resume_with_settings_that_change_the_training(self, gta5_root, tmp_path):
        common = [
            "--train-on",
            "gta5",
            "--gta5",
            gta5_root,
            "--max-steps",
            1,
            "--schedule-steps",
            9,
        ]
        folder = run(tmp_path, *common)
        before = (folder / "last.pt").read_bytes()
        self.refuse(
            tmp_path,
            r"lr: 0.0005 -> 0.1; seed: 0 -> 4",
            *common,
            "--resume",
            "--lr",
            0.1,
            "--seed",
            4,
        )
        (gta5_root / "images/00001.png").unlink()
        (gta5_root / "labels/00001.png").unlink()
        self.refuse(tmp_path, r"data_fingerprint: 6 images.* -> 5 images", *common, "--resume")
        assert (folder / "last.pt").read_bytes() == before

    def test_a_folder_that_holds_a_run(self, gta5_root, tmp_path):
        common = ["--train-on", "gta5", "--gta5", gta5_root, "--max-steps", 1]
        folder = run(tmp_path, *common)
        before = (folder / "last.pt").read_bytes()
        self.refuse(tmp_path, "already holds a run", *common)
        assert (folder / "last.pt").read_bytes() == before

    def test_nothing_to_resume(self, gta5_root, tmp_path):
        self.refuse(
            tmp_path,
            "Nothing to resume",
            "--train-on",
            "gta5",
            "--gta5",
            gta5_root,
            "--max-steps",
            1,
            "--resume",
        )

    def test_init_from_another_backbone(self, gta5_root, tmp_path):
        folder = run(tmp_path / "a", "--train-on", "gta5", "--gta5", gta5_root, "--max-steps", 1)
        arguments = [
            "--train-on",
            "gta5",
            "--gta5",
            gta5_root,
            "--max-steps",
            1,
            "--init",
            folder / "last.pt",
        ]
        self.refuse(
            tmp_path / "b", "Choose the same --backbone", *arguments, "--backbone", "resnet101"
        )

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--batch-size", "1"], "at least 2 images"),
            (
                ["--batch-size", "4", "--accumulate", "4"],
                "Give a larger batch (with 1 processes x 4 micro-batches: 8), --bn sync",
            ),
            (["--batch-size", "4", "--accumulate", "3"], "choose a multiple of 3"),
            (["--batch-size", "4", "--accumulate", "4", "--bn", "sync"], "at least 2 images"),
            (["--crop-size", "16", "64"], "at least 32 pixels"),
            (["--lr", "-1"], "finite number above 0"),
            (["--lr", "nan"], "finite number above 0"),
            (["--flip", "2"], "from 0 to 1"),
            (["--max-steps", "0"], "at least 1"),
            (["--precision", "half"], "invalid choice"),
        ],
    )
    def test_values_that_cannot_be(self, capsys, arguments, message):
        with pytest.raises(SystemExit) as stop:
            train.parse_arguments(
                [*SMALL, "--train-on", "cityscapes", "--cityscapes", "x", *arguments]
            )
        assert stop.value.code == 2
        assert message in capsys.readouterr().err

    def test_synchronized_batch_norm_without_cuda(self, cityscapes_root, tmp_path):
        self.refuse(
            tmp_path,
            "--bn sync needs CUDA",
            "--train-on",
            "cityscapes",
            "--cityscapes",
            cityscapes_root,
            "--bn",
            "sync",
        )

    def test_a_data_set_without_its_root(self, capsys):
        with pytest.raises(SystemExit):
            train.parse_arguments(["--train-on", "gta5"])
        assert "needs --gta5 ROOT" in capsys.readouterr().err

    @pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
    def test_the_command_ends_with_one_line(self, cityscapes_root):
        words = ["--train-on", "cityscapes", "--cityscapes", cityscapes_root, "--device", "cuda"]
        done = run_forked("train.py", *words)
        assert done.returncode == 1
        assert done.stderr.strip().splitlines()[-1].startswith("error: --device cuda was asked for")
        assert "Traceback" not in done.stderr


def test_help_reads_like_documentation(capsys):
    with pytest.raises(SystemExit):
        train.parse_arguments(["--help"])
    text = capsys.readouterr().out
    assert "examples:" in text
    assert "source-only baseline" in text
