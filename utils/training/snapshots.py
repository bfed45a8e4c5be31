"""Snapshots: numbered checkpoints of a run, with the network for inference alone."""

import shutil
from pathlib import Path
from typing import Any

from torch import nn

from utils.files import remove_quietly
from utils.training.checkpoint import may_be_full, save_checkpoint


def snapshot_path(folder: Path, step: int) -> Path:
    """The file of the snapshot after ``step`` steps; names sort by steps."""
    return folder / f"step_{step:07d}.pt"


def snapshot_files(folder: Path) -> list[Path]:
    """The snapshots in a run folder, in the order of their steps."""
    found = folder.glob("step_*.pt")
    numbered = [path for path in found if path.stem.removeprefix("step_").isdecimal()]
    return sorted(numbered, key=step_of)


def step_of(snapshot: Path) -> int:
    """The step of a snapshot, from the name of its file."""
    return int(snapshot.stem.removeprefix("step_"))


class Snapshots:
    """Keeps the network for inference every ``every`` steps (0: never), the ``last`` ones or all.

    ``metadata``: of the run's checkpoints; it names the part that ``network`` is. All scripts that
    read a checkpoint read a snapshot. Only the process that ``writes`` does anything. last.pt goes
    first: it must be saved before, and a snapshot never takes the room that the next last.pt needs.
    """

    def __init__(
        self,
        last_checkpoint: Path,
        every: int,
        last: int | None,
        network: nn.Module,
        metadata: dict[str, Any],
        writes: bool = True,
    ):
        self.folder, self._last_checkpoint = last_checkpoint.parent, last_checkpoint
        self.every, self.last, self.writes = every, last, writes
        self._network, self._metadata = network, metadata

    def is_due(self, step: int) -> bool:
        """Whether a snapshot belongs to the state after ``step`` steps."""
        return bool(self.every and step and step % self.every == 0)

    def is_missing(self, step: int) -> bool:
        """Whether a run that resumes after ``step`` steps ended before it wrote the snapshot."""
        return self.is_due(step) and not snapshot_path(self.folder, step).exists()

    def announcement(self, max_steps: int) -> list[str]:
        """Lines for the start of a run: how many snapshots, and their bound on the disk."""
        if not self.every or not self.writes:
            return []
        here = set(map(step_of, snapshot_files(self.folder)))
        count, size = len(here | set(range(self.every, max_steps + 1, self.every))), self._size()
        if self.last is not None and self.last < count:
            count = self.last
        written = count * size + size  # one more while it is written
        free = shutil.disk_usage(self.folder).free
        lines = [
            f"Snapshots: the network every {self.every} steps, at most {count} files of"
            f" {_megabytes(size)}, at most {_megabytes(written)} on the disk ({_megabytes(free)}"
            " are free)."
        ]
        if written - len(here) * size > free:
            lines.append(
                "WARNING: the disk has no room for all snapshots: the later ones will not be kept."
                " Make room, or add --keep-last N."
            )
        return lines

    def keep(self, step: int) -> list[str]:
        """Writes the snapshot of ``step``, then removes those beyond ``last``.

        Returns a warning, and leaves all files as they were, where it cannot be written.
        """
        if not self.writes:
            return []
        free, needed = shutil.disk_usage(self.folder).free, self._size()
        needed += self._last_checkpoint.stat().st_size
        if free < needed:
            return [
                f"WARNING: no snapshot of step {step}: {_megabytes(free)} are free, and with the"
                f" next last.pt it needs {_megabytes(needed)}. The run goes on; make room."
            ]
        try:
            self._write(step)
        except OSError as error:
            reason = error.__cause__ or error
            remedy = "make room" if may_be_full(reason) else "see that files can be written there"
            return [
                f"WARNING: no snapshot of step {step} ({reason}). The run goes on, and last.pt is"
                f" saved; {remedy}."
            ]
        if self.last is not None:
            for path in snapshot_files(self.folder)[: -self.last]:
                remove_quietly(path)  # one that cannot be removed is tried again the next time
        return []

    def _write(self, step: int) -> None:
        name, metadata = self._metadata["name"], self._metadata
        part = metadata.get("inference_network", "model")
        metadata = metadata | {"name": f"{name}-step{step}", "run": name, "step": step}
        save_checkpoint(snapshot_path(self.folder, step), {part: self._network}, **metadata)

    def _size(self) -> int:
        """Bytes of a snapshot: its tensors; the metadata are small."""
        tensors = self._network.state_dict().values()
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _megabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
