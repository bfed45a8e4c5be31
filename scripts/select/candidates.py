"""The checkpoints that are ranked: found, compared, and what their runs recorded."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from dataset.class_set_file import recorded_class_set
from model.loading import full_architecture
from utils.report.scored_rows import read_run_records
from utils.training.checkpoint import read_checkpoint
from utils.training.snapshots import snapshot_files, step_of


@dataclass
class Candidate:
    """A checkpoint and what was measured on it. ``folder``: its run."""

    path: Path
    metadata: dict[str, Any] = field(default_factory=dict)
    values: dict[str, float | None] = field(default_factory=dict)
    shares: Tensor | None = None
    probabilities: Tensor | None = None  # (P, C) float16, of the first view

    def read(self) -> dict[str, Any]:
        """The checkpoint. The metadata are then those of its weights: its run may still save."""
        checkpoint = read_checkpoint(self.path)
        self.metadata = {key: value for key, value in checkpoint.items() if key != "parts"}
        return checkpoint

    @property
    def folder(self) -> Path:
        return self.path.absolute().parent

    @property
    def step(self) -> int:
        return self.metadata["step"]

    @property
    def is_average(self) -> bool:
        """Whether scripts.average made it."""
        return "averaged" in self.metadata["settings"]

    @property
    def run(self) -> tuple[str, str | None]:
        """Name and --output of its run, wherever the file lies now."""
        metadata = self.metadata
        return metadata.get("run", metadata["name"]), metadata["settings"].get("output")

    @property
    def key(self) -> tuple[str, int]:
        """What identifies it in files of scores."""
        return score_key(self.path, self.step)


def score_key(path: Path, step: int) -> tuple[str, int]:
    """The run folder of a checkpoint that its run wrote, else the file; and its step.

    last.pt and the snapshot of its step are one network; what scripts write beside them is not.
    """
    is_of_run = re.fullmatch(r"(last|best|step_\d+)\.pt", path.name)
    folder = path.absolute().parent.resolve()
    return str(folder if is_of_run else folder / path.name), step


def checkpoint_files(path: Path) -> list[Path]:
    """The candidates of a run folder, by steps, or the file itself.

    Of last.pt and the snapshot of the same step, last.pt is taken; best.pt was chosen with labels.
    Raises FileNotFoundError for a folder without checkpoints.
    """
    if not path.is_dir():
        return [path]
    files, last = snapshot_files(path), path / "last.pt"
    if last.exists():
        step = read_checkpoint(last)["step"]
        files = [file for file in files if step_of(file) != step] + [last]
    if not files:
        raise FileNotFoundError(
            f"No checkpoint in {path}: no step_*.pt (train_da.py --keep-every STEPS) and no"
            " last.pt. Expected a run folder such as checkpoints/NAME, or checkpoints."
        )
    return files


def find_candidates(paths: Sequence[Path]) -> list[Candidate]:
    """All candidates. Raises ValueError where they cannot be compared, or are fewer than two."""
    files = list(dict.fromkeys(file for path in paths for file in checkpoint_files(path)))
    candidates = [Candidate(file) for file in files]
    for candidate in candidates:
        candidate.read()
    if len(candidates) < 2:
        raise ValueError(
            f"Found one checkpoint, {files[0]}: there is nothing to rank. Name several, or a run"
            " that keeps snapshots (train_da.py --keep-every STEPS)."
        )
    first = candidates[0]
    for other in candidates[1:]:
        for what, value_of in COMPARED.items():
            one, two = value_of(first.metadata), value_of(other.metadata)
            if one != two:
                raise ValueError(
                    f"{first.path} and {other.path} differ in their {what}: {one} and {two}. The"
                    " measures cannot be compared across these: rank each kind by itself."
                )
    return candidates


def class_names(metadata: dict[str, Any]) -> list[str]:
    """Names of a checkpoint's classes."""
    return list(recorded_class_set(metadata).names)


COMPARED = {
    "classes": class_names,
    "architecture": full_architecture,
    "input": lambda metadata: metadata["input"],
}
"""What candidates of one ranking share."""


def runs_of(candidates: Sequence[Candidate]) -> list[str]:
    """The run folder of each candidate: its own, or for an average that of its snapshots."""
    of_run = {c.run: c.folder for c in candidates if not c.is_average}
    return [str(of_run.get(c.run, c.folder) if c.is_average else c.folder) for c in candidates]


def collapse_warnings(candidates: Sequence[Candidate]) -> list[str]:
    """Warnings that the runs recorded while they trained, each with the run's name."""
    found = []
    for folder in dict.fromkeys(candidate.folder for candidate in candidates):
        try:
            entries = read_run_records(folder) if (folder / "config.json").is_file() else []
        except ValueError as error:  # the ranking needs none of it
            found.append(f"WARNING: {error}")
            continue
        for entry in entries:
            name = f"{folder.parent.name}/{folder.name}"
            found += [f"{name}: {text}" for text in entry.get("warnings", [])]
    return found
