"""Nothing that a run has learned is lost, and nothing broken is ever saved."""

import os
import random
import signal
import subprocess
import time

import pytest
import torch

from model import training_step
from model.uda import self_training
from tests.helpers.checkpoints import same_state
from tests.helpers.cli import command, run, start, words
from tests.helpers.forked import run_forked
from utils.training import loop
from utils.training.checkpoint import read_checkpoint
from utils.training.distributed import ProcessGroup
from utils.training.loop import TrainingRun
from utils.training.meters import LossMeter
from utils.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("narrow_networks")

RARE_LOOKS = ("--log-every", 100, "--max-steps", 6)


@pytest.fixture(params=["train", "train_da"])
def script(request):
    return request.param


@pytest.fixture
def broken_loss(monkeypatch):
    """The segmenter's loss is NaN in the fourth step."""
    calls = []

    def from_the_fourth_on(function):
        def spoiled(*arguments, **options):
            calls.append(None)
            return function(*arguments, **options) * (float("nan") if len(calls) == 4 else 1.0)

        return spoiled

    monkeypatch.setattr(
        training_step, "segmentation_loss", from_the_fourth_on(training_step.segmentation_loss)
    )


@pytest.mark.parametrize(
    ("saving", "last_good"),
    [
        (("--save-every", 1), 3),
        (("--save-every", 3), 3),
        (("--save-every", 100), None),
        (("--save-every", 2, "--log-every", 1), 2),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_a_non_finite_loss_stops_the_run_and_is_never_saved(
    script, gta5_root, cityscapes_root, tmp_path, broken_loss, saving, last_good
):
    roots = (gta5_root, cityscapes_root, tmp_path)
    validation = ("--validate-every", 5)  # which would save best.pt
    with pytest.raises(
        FloatingPointError,
        match=r"Step 3 gave losses that are not finite(.|\n)*step 3: .*nan.*from the images \['\w+",
    ):
        start(script, *words(script, *roots, *RARE_LOOKS, *validation, *saving))
    last = tmp_path / "run/last.pt"
    assert (read_checkpoint(last)["step"] if last.exists() else None) == last_good
    assert not (tmp_path / "run/best.pt").exists()


FAILURES = {
    "out of memory": (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        r"Out of memory on cpu \(CUDA out of memory.*\) in a step of 2 \+ 2 images of 64x64 in fp32"
        r"(.|\n)*--accumulate 2(.|\n)*All 3 whole steps are saved",
    ),
    "damaged image": (ValueError("x.png cannot be decoded."), "x.png cannot be decoded"),
}


@pytest.mark.parametrize(
    ("recipe", "failure"), [("paper", "out of memory"), ("strong", "damaged image")]
)
def test_an_error_in_a_step_loses_no_whole_step(
    gta5_root, cityscapes_root, tmp_path, monkeypatch, failure, recipe
):
    """The last whole step is saved, and the continued run equals an uninterrupted one.

    The error comes in the middle of step 4, after BatchNorm has seen its source images.
    """
    error, message = FAILURES[failure]
    few_saves = ("--recipe", recipe, "--backbone", "resnet18", "--save-every", 100)
    roots = (gta5_root, cityscapes_root)
    straight = words("train_da", *roots, tmp_path / "straight", *few_saves, "--max-steps", 5)
    start("train_da", *straight)
    stopped = words("train_da", *roots, tmp_path / "stopped", *few_saves, "--max-steps", 5)
    forward, calls = training_step.segmentation_loss, []

    def fails_in_step_4(*arguments, **options):
        calls.append(None)
        if len(calls) == (4 if recipe == "paper" else 8):
            raise error
        return forward(*arguments, **options)

    for module in (training_step, self_training):
        monkeypatch.setattr(module, "segmentation_loss", fails_in_step_4)
    with pytest.raises(ValueError, match=message):
        start("train_da", *stopped)
    monkeypatch.undo()
    last = tmp_path / "stopped/run/last.pt"
    assert read_checkpoint(last)["step"] == 3
    start("train_da", *stopped, "--resume")
    assert same_state(last, tmp_path / "straight/run/last.pt")


def test_an_error_after_a_step_keeps_its_statistics(
    gta5_root, cityscapes_root, tmp_path, monkeypatch
):
    """Where the log fails after step 2, all of step 2 is saved, BatchNorm's statistics too."""
    roots = (gta5_root, cityscapes_root)
    flags = ("--schedule-steps", 9, "--save-every", 100, "--max-steps")
    start("train", *words("train", *roots, tmp_path / "straight", *flags, 2))

    def fail(run, done, is_interval):
        if done == 2:
            raise OSError("no space for the log")

    monkeypatch.setattr(TrainingRun, "_log", fail)
    with pytest.raises(OSError, match="no space"):
        start("train", *words("train", *roots, tmp_path / "stopped", *flags, 3))
    assert same_state(tmp_path / "stopped/run/last.pt", tmp_path / "straight/run/last.pt")


@pytest.mark.parametrize("failing", ["log", "scores"])
def test_an_error_at_the_very_end_can_be_made_good(
    cityscapes_root, gta5_root, tmp_path, monkeypatch, failing
):
    """After the last step: the resumed run makes up for the validation, and is finished.

    Where validation itself failed, it may also be left out.
    """
    flags = ("--max-steps", 1, "--validate-every", 1)
    arguments = words("train", gta5_root, cityscapes_root, tmp_path, *flags)

    def fail(*_, **__):
        raise OSError("no space")

    target, name = (RunFolder, "log") if failing == "log" else (loop, "evaluate")
    monkeypatch.setattr(target, name, fail)
    with pytest.raises(OSError, match="no space"):
        start("train", *arguments)
    monkeypatch.undo()
    last = tmp_path / "run/last.pt"
    assert not read_checkpoint(last)["finished"]
    if failing == "log":
        start("train", *arguments, "--resume")
        assert read_checkpoint(last)["best"]["step"] == 1
    else:
        start("train", *arguments, "--resume", "--validate-every", 0)
        assert not (tmp_path / "run/best.pt").exists()
    assert read_checkpoint(last)["finished"]
    assert not read_checkpoint(last)["validation_due"]


def test_losses_of_an_unfinished_step_are_dropped():
    """They come again when the step is repeated."""
    meter = LossMeter(ProcessGroup(torch.device("cpu")))
    for step in (0, 1, 2):
        meter.add(step, {"loss": torch.tensor(float(step))}, ["a"])
    meter.keep_whole_steps(2)
    assert meter.state() == {"steps": [0, 1], "values": {"loss": [0.0, 1.0]}}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weights_are_not_saved(
    script, gta5_root, cityscapes_root, tmp_path, monkeypatch, value
):
    """Weights that are not finite are not saved, though the loss is finite."""
    step, calls = torch.optim.SGD.step, []

    def spoil(optimizer, *arguments, **options):
        step(optimizer, *arguments, **options)
        calls.append(None)
        if len(calls) == 3:
            optimizer.param_groups[0]["params"][5].data.view(-1)[0] = value

    monkeypatch.setattr(torch.optim.SGD, "step", spoil)
    roots = (gta5_root, cityscapes_root, tmp_path)
    with pytest.raises(
        FloatingPointError, match=r"After step 3(.|\n)*model\.(.|\n)*step 2: .*from the images"
    ):
        start(script, *words(script, *roots, *RARE_LOOKS, "--save-every", 1))
    assert read_checkpoint(tmp_path / "run/last.pt")["step"] == 2


def test_a_refused_run_leaves_signals_and_its_folder(script, gta5_root, cityscapes_root, tmp_path):
    """After a refused --resume signals do what they did, and the folder is not locked."""
    flags = words(script, gta5_root, cityscapes_root, tmp_path, "--max-steps", 1)
    start(script, *flags)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="--resume with settings that change"):
        start(script, *flags, "--resume", "--lr", 1)
    assert signal.getsignal(signal.SIGTERM) == before
    start(script, *flags, "--resume")


@pytest.mark.slow
def test_a_diverged_run_says_so_and_another_can_go_on(gta5_root, cityscapes_root, tmp_path):
    """It ends with the message and no traceback; a run resumes from its last good checkpoint."""
    roots = (gta5_root, cityscapes_root, tmp_path)
    common = ["--batch-size", 2, "--save-every", 1, "--schedule-steps", 9, "--log-every", 9]
    assert run("train", *roots, *common, "--max-steps", 1).returncode == 0
    done = run(
        "train",
        *roots,
        "--batch-size",
        2,
        "--max-steps",
        5,
        "--lr",
        "1e38",
        "--save-every",
        1,
        "--name",
        "wild",
    )
    assert done.returncode == 1
    assert "not finite" in done.stderr
    assert "Traceback" not in done.stderr
    assert run("train", *roots, *common, "--max-steps", 2, "--resume").returncode == 0


def test_a_full_disk_leaves_the_old_checkpoint_and_says_so(gta5_root, cityscapes_root, tmp_path):
    roots = (gta5_root, cityscapes_root, tmp_path)
    common = ["--batch-size", 2, "--schedule-steps", 9]
    start("train", *words("train", *roots, *common, "--max-steps", 1))
    before = (tmp_path / "run/last.pt").read_bytes()
    flags = words("train", *roots, *common, "--max-steps", 2, "--resume")
    done = run_forked("train.py", *flags, file_limit=len(before) // 2)
    assert done.returncode == 1
    assert "error: Could not write" in done.stderr
    assert "previous last.pt is intact" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run/last.pt").read_bytes() == before
    assert not list((tmp_path / "run").glob("*.writing"))


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(gta5_root, cityscapes_root, tmp_path):
    """Every second kill falls into a save, while the new file is being written."""
    rng = random.Random(0)
    roots, steps, kills, in_a_save = (gta5_root, cityscapes_root), 50, 20, 0
    common = ["--batch-size", 2, "--max-steps", steps, "--save-every", 1, "--workers", 1]
    straight = run("train_da", *roots, tmp_path / "straight", *common, "--save-every", steps)
    assert straight.returncode == 0, straight.stderr

    last = tmp_path / "killed/run/last.pt"
    writing = last.with_name(".last.pt.writing")

    def start() -> subprocess.Popen:
        resume = ["--resume"] if last.exists() else []
        process = subprocess.Popen(
            command("train_da", *roots, tmp_path / "killed", *common, *resume),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        process.stdout.readline()  # its first words: the run has begun
        return process

    for number in range(kills):
        process = start()
        if number % 2:
            size = rng.randint(0, 50_000_000)
            while process.poll() is None and not (writing.exists() and _size(writing) > size):
                time.sleep(0.0005)
        else:
            time.sleep(rng.uniform(0, 1.5))
        assert process.poll() is None, process.communicate()
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        in_a_save += writing.exists()
    assert in_a_save >= kills // 4
    process = start()
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert read_checkpoint(last)["step"] == steps
    assert same_state(last, tmp_path / "straight/run/last.pt")


def _size(path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
