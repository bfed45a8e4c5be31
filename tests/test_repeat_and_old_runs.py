"""A run is repeated from its settings.toml, and a run of an older revision is continued."""

import pytest
import torch

from tests.helpers.checkpoints import same_state
from tests.helpers.cli import start, words
from tests.helpers.networks import write_checkpoint
from utils.options.renamed import RENAMED_FLAGS, RENAMED_KEYS, RENAMED_PARTS, RENAMED_SETTINGS
from utils.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.usefixtures("narrow_networks")

FLAGS = {
    "train": ("--pixel-weights", "class", "--jitter", "--scales", 0.75, 1, "--warmup", 2),
    "train_da": ("--recipe", "strong", "--lab", 0.5, "--ema", 0.9, "--pseudo-threshold", 0.1),
}


@pytest.mark.parametrize("script", FLAGS)
def test_settings_toml_repeats_a_run(gta5_root, cityscapes_root, tmp_path, script):
    """``--recipe checkpoints/NAME/settings.toml`` alone gives the same state, bit for bit."""
    flags = (*FLAGS[script], "--backbone", "resnet18", "--max-steps", 3)
    start(script, *words(script, gta5_root, cityscapes_root, tmp_path, *flags))
    settings = tmp_path / "run/settings.toml"
    start(script, "--recipe", settings, "--output", tmp_path, "--name", "again")
    assert same_state(tmp_path / "run/last.pt", tmp_path / "again/last.pt")
    again = (tmp_path / "again/settings.toml").read_text()
    assert again == settings.read_text().replace("the run run", "the run again")


def test_a_resumed_run_keeps_where_it_began(gta5_root, cityscapes_root, tmp_path, capsys):
    """Resumed without its --init, settings.toml and the checkpoint still name it; another one is
    said to have no effect.
    """
    initial = write_checkpoint(tmp_path / "initial.pt", seed=3)
    common = words("train", gta5_root, cityscapes_root, tmp_path, "--schedule-steps", 4)
    start("train", *common, "--init", initial, "--max-steps", 1)
    start("train", *common, "--max-steps", 2, "--resume")
    assert read_checkpoint(tmp_path / "run/last.pt")["settings"]["init"] == str(initial)
    start("train", *common, "--max-steps", 2, "--resume", "--init", initial)
    assert "NOTE" not in capsys.readouterr().out
    start("train", *common, "--max-steps", 2, "--resume", "--init", "other.pt")
    expected = f"NOTE: --init other.pt: without effect with --resume; this run began from {initial}"
    assert expected in capsys.readouterr().out
    settings = tmp_path / "run/settings.toml"
    start("train", "--recipe", settings, "--output", tmp_path, "--name", "again")
    assert same_state(tmp_path / "run/last.pt", tmp_path / "again/last.pt")


def test_a_run_of_format_1_is_continued(gta5_root, cityscapes_root, tmp_path):
    """Old names of flags, parts and keys are read: the state is that of an uninterrupted run."""
    flags = ("--recipe", "strong", "--pixel-weights", "ohem", "--joint-batch-norm")
    for name, steps in (("straight", 3), ("old", 2)):
        place = words("train_da", gta5_root, cityscapes_root, tmp_path / name)
        start("train_da", *place, *flags, "--max-steps", steps)
    last = tmp_path / "old/run/last.pt"
    torch.save(as_format_1(torch.load(last, weights_only=True)), last)
    start("train_da", *place, *flags, "--max-steps", 3, "--resume")
    assert same_state(tmp_path / "straight/run/last.pt", last)


def as_format_1(content: dict) -> dict:
    """A checkpoint in the words of revision e48f3af."""
    old_names = {
        new.removeprefix("--").replace("-", "_"): old.removeprefix("--").replace("-", "_")
        for old, new in RENAMED_FLAGS.items()
        if not old.startswith("--no-")
    }
    old_names |= {new: old for old, new in RENAMED_SETTINGS.items()}
    old_parts = {new: old for old, new in RENAMED_PARTS.items()}
    settings = {old_names.get(name, name): value for name, value in content["settings"].items()}
    settings |= {"domain_batches": "joint", "pixel_weights": "hard", "lambda_adv": 0.01}
    settings |= {"teacher_statistics": "averaged"}
    parts = {old_parts.get(name, name): part for name, part in content["parts"].items()}
    old = content | {"settings": settings, "parts": parts, "format": "bisenet-domain-adaptation 1"}
    for old_key, new_key in RENAMED_KEYS.items():
        old[old_key] = old.pop(new_key)
    return old
