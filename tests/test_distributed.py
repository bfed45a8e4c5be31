"""One batch, computed by one process, in two parts, or by two processes: the same training."""

import math
import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from dataset.sampling import ShuffledIndex
from dataset.training_data import SOURCE_STREAM
from tests.conftest import write_gta5
from tests.helpers.checkpoints import same_state
from tests.helpers.cli import SMALL, command, run, start, words
from tests.helpers.forked import run_together
from utils.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.usefixtures("narrow_networks")


@pytest.fixture
def roots(gta5_root, cityscapes_root):
    """Every scene has other shares of void pixels, so that a mean of means would differ from the
    mean over the whole batch.
    """
    for number, path in enumerate(
        sorted(
            [*(gta5_root / "labels").iterdir(), *(cityscapes_root / "gtFine/train").rglob("*.png")]
        )
    ):
        blank_rows(path, number % 6 * 10)
    return gta5_root, cityscapes_root


def blank_rows(path, rows):
    from PIL import Image

    label = Image.open(path)
    label.paste(0, (0, 0, label.width, rows))
    label.save(path)


def gradients(folder) -> dict[str, torch.Tensor]:
    """The gradient vector of each network in the only step of a run: SGD's momentum and, but for a
    factor, Adam's first moment.
    """
    parts = read_checkpoint(folder / "run/last.pt")["parts"]
    names = {"optimizer": "momentum_buffer", "d_optimizer": "exp_avg"}
    return {
        part: torch.cat([s[key].flatten() for s in parts[part]["state"].values()]).double()
        for part, key in names.items()
        if part in parts
    }


@pytest.mark.parametrize("script", ["train", "train_da"])
def test_gradients_do_not_depend_on_parts_and_processes(roots, tmp_path, script):
    common = ["--max-steps", 1, "--batch-size", 4, "--bn", "frozen", "--weight-decay", 0]
    common += ["--lambda-adv", 10] if script == "train_da" else []
    for name, parts in {"whole": 1, "parts": 4}.items():
        start(script, *words(script, *roots, tmp_path / name, *common, "--accumulate", parts))
    flags = words(script, *roots, tmp_path / "both", *common, "--accumulate", 2)
    done = run_together(f"{script}.py", *flags, processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("step 1:") == 1  # one process writes
    found = {name: gradients(tmp_path / name) for name in ("whole", "parts", "both")}
    for name, whole in found["whole"].items():
        assert whole.norm() > 0
        for way in ("parts", "both"):
            assert (found[way][name] - whole).norm() / whole.norm() < 1e-5, (way, name)


def stopped_run(folder: Path, rank: int) -> tuple[list, Path, bytes]:
    """A run of two processes, of which ``rank`` meets a damaged image in its third step.

    Returns its flags, the image, and the image's sound content.
    """
    root = write_gta5(folder / "data", 12)
    position = ShuffledIndex(12, seed=0, rng_stream=SOURCE_STREAM)(8 + 3 * rank)
    image = sorted((root / "images").iterdir())[position]
    content = image.read_bytes()
    image.write_bytes(content[:-100])  # its header, which is looked at before, is whole
    flags = [*SMALL, "--train-on", "source", "--source", root, "--batch-size", 4]
    flags += ["--panel-every", 0, "--output", folder, "--name", "run", "--max-steps", 3]
    done = run_together("train.py", *flags, processes=2, timeout_s=60)
    assert done.returncode == 1
    assert f"{image.name} cannot be decoded" in done.stderr
    assert "Traceback" not in done.stderr
    assert "All 2 whole steps are saved" in done.stdout
    assert read_checkpoint(folder / "run/last.pt")["step"] == 2
    return flags, image, content


def test_an_error_in_one_process_loses_no_whole_step(tmp_path):
    """The process that does not save fails: none hangs, and the last whole step is saved."""
    stopped_run(tmp_path, rank=1)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_of_which_one_process_failed_goes_on(tmp_path, rank):
    """Resumed, it ends like a run that never failed."""
    flags, image, content = stopped_run(tmp_path, rank)
    image.write_bytes(content)
    for more in (("--resume",), ("--name", "straight")):
        done = run_together("train.py", *flags, *more, processes=2)
        assert done.returncode == 0, done.stderr
    assert same_state(tmp_path / "run/last.pt", tmp_path / "straight/last.pt")


@pytest.mark.slow
def test_scores_and_a_resumed_run_do_not_depend_on_processes(roots, tmp_path):
    common = ["--batch-size", 4, "--bn", "frozen", "--schedule-steps", 9, "--lr", 1e-4]
    alone = run("train", *roots, tmp_path / "a", *common, "--max-steps", 1, "--validate-every", 1)
    together = run(
        "train",
        *roots,
        tmp_path / "b",
        *common,
        "--max-steps",
        1,
        "--validate-every",
        1,
        processes=2,
    )
    assert alone.returncode == together.returncode == 0, alone.stderr + together.stderr
    scores = [read_checkpoint(tmp_path / name / "run/best.pt")["best"]["miou"] for name in "ab"]
    assert math.isclose(*scores, rel_tol=1e-3)
    more = run(
        "train", *roots, tmp_path / "b", *common, "--max-steps", 2, "--resume"
    )  # with frozen BatchNorm their number may change
    assert more.returncode == 0, more.stderr
    assert read_checkpoint(tmp_path / "b/run/last.pt")["step"] == 2


@pytest.mark.slow
def test_two_processes_stop_together_and_resume_bit_for_bit(roots, tmp_path):
    common = ["--batch-size", 4, "--schedule-steps", 100, "--save-every", 1]
    process = subprocess.Popen(
        command("train", *roots, tmp_path / "a", *common, "--max-steps", 100, processes=2),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("step 2"):
            break
    process.send_signal(signal.SIGTERM)  # torchrun hands it to its processes
    output, errors = process.communicate(timeout=100)
    assert "Stopped by SIGTERM after step" in output, errors
    stopped = read_checkpoint(tmp_path / "a/run/last.pt")["step"]
    straight = run(
        "train", *roots, tmp_path / "b", *common, "--max-steps", stopped + 2, processes=2
    )
    resumed = run(
        "train",
        *roots,
        tmp_path / "a",
        *common,
        "--max-steps",
        stopped + 2,
        "--resume",
        processes=2,
    )
    assert straight.returncode == resumed.returncode == 0, resumed.stderr
    assert same_state(tmp_path / "a/run/last.pt", tmp_path / "b/run/last.pt")


@pytest.mark.slow
def test_local_batch_norm_refuses_another_number_of_processes(roots, tmp_path):
    common = ["--batch-size", 4, "--schedule-steps", 9]
    run("train", *roots, tmp_path, *common, "--max-steps", 1)
    done = run("train", *roots, tmp_path, *common, "--max-steps", 2, "--resume", "--accumulate", 2)
    assert done.returncode == 1
    assert "batch_norm_group_sizes: [4] -> [2]" in done.stderr


@pytest.mark.slow
def test_a_process_that_dies_takes_the_run_down(roots, tmp_path):
    process = subprocess.Popen(
        command("train", *roots, tmp_path, "--batch-size", 4, "--max-steps", 10000, processes=2),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("step 2"):
            break
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
    ).stdout.split()
    assert len(children) == 2
    os.kill(int(children[1]), signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "SIGKILL" in errors
