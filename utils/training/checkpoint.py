"""Checkpoints: one file of tensors and plain values, written atomically.

It is read with ``weights_only=True``, so that a stranger's file cannot run code.
"""

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from utils.files import atomic_file
from utils.options.renamed import RENAMED_KEYS, RENAMED_PARTS, new_settings
from utils.training.meters import LossMeter, not_finite

FORMAT, OLD_FORMAT = "bisenet-domain-adaptation 2", "bisenet-domain-adaptation 1"


class Stateful(Protocol):
    """A network, an optimizer, a scaler."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


def save_checkpoint(path: Path, parts: dict[str, Stateful], **metadata: Any) -> None:
    """Writes the state of every part and the metadata (plain values) to ``path``.

    Raises OSError, the previous file intact, if it cannot be written.
    """
    path = Path(path)
    content = {
        "format": FORMAT,
        "parts": {name: part.state_dict() for name, part in parts.items()},
        **metadata,
    }
    try:
        with atomic_file(path, durable=True) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        kept = f"The previous {path.name} is intact. " if path.exists() else ""
        raise OSError(
            f"Could not write {path} ({error}). {kept}Make room or choose another --output, then"
            " continue with --resume."
        ) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU; one of format 1 comes in the words of today.

    Raises FileNotFoundError, or ValueError for another file, or a damaged one.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder. Name the file inside, such as {path / 'last.pt'}.")
    if not path.is_file():
        raise FileNotFoundError(
            f"No checkpoint at {path}. Expected a file such as checkpoints/NAME/last.pt."
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # for a damaged file: anything from EOFError to UnpicklingError
        raise ValueError(
            f"{path} is no checkpoint, or a damaged one ({reason_of(error)}). Expected a last.pt or"
            " best.pt of ours."
        ) from error
    found = content.get("format", "no format") if isinstance(content, dict) else type(content)
    if found == OLD_FORMAT:
        return _upgraded(content)
    if found != FORMAT:
        raise ValueError(
            f"{path} is no checkpoint of this project (found {found!r}, expected {FORMAT!r})."
        )
    return content


def _upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of format 1 in the words of format 2 (utils.options.renamed)."""
    content = dict(content)
    parts = {RENAMED_PARTS.get(name, name): part for name, part in content["parts"].items()}
    content |= {"format": FORMAT, "parts": parts, "settings": new_settings(content["settings"])}
    for old, new in RENAMED_KEYS.items():
        if old in content:
            content[new] = content.pop(old)
    return content


def reason_of(error: Exception) -> str:
    """Reason why torch could not load a file, in one line: torch's own text is long."""
    text = str(error).split("\n")[0]
    if "Weights only load failed" in text:
        return "it is not, or not only, tensors and plain values"
    return text if " " in text else f"{type(error).__name__} {text}".strip()


def plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as values that a checkpoint may hold: paths as text, tuples as lists."""
    convert = {Path: str, tuple: list}
    return {
        name: next(
            (make(value) for kind, make in convert.items() if isinstance(value, kind)), value
        )
        for name, value in settings.items()
    }


def differences(
    now: dict[str, Any], before: dict[str, Any], may_change: frozenset[str]
) -> list[str]:
    """Settings of ``now`` that were others before and matter, each as "name: before -> now"."""
    return [
        f"{name}: {before.get(name)} -> {value}"
        for name, value in sorted(now.items())
        if name not in may_change and value != before.get(name)
    ]


class TrainingState:
    """Everything that a run needs to continue as if it had never stopped.

    ``parts``: the stateful objects. ``metadata``: plain values that describe the run: name,
    architecture, input, settings, ... Order and augmentation of the data are functions of the seed
    and the step, so the step is enough for them. Values that are not finite are never written,
    neither losses that ``meter`` noted nor parts. All processes call ``save``; one ``writes``.
    """

    def __init__(
        self,
        parts: dict[str, Stateful],
        metadata: dict[str, Any],
        device: torch.device,
        meter: LossMeter,
        writes: bool = True,
    ):
        self.parts, self.metadata, self.device = parts, metadata, device
        self.meter, self.writes = meter, writes
        self.step, self.best = 0, None

    def check(self, step: int) -> None:
        """Raises FloatingPointError for losses or parts that are not finite."""
        self.meter.check()
        # Processes may differ in BatchNorm statistics: what is broken in one of them stops all.
        here = not_finite({name: part.state_dict() for name, part in self.parts.items()})
        broken = [name for names in self.meter.processes.gather(here) for name in names]
        if broken:
            raise FloatingPointError(
                f"After step {step}, {len(broken)} tensors hold values that are not finite, the"
                f" first {broken[0]}, though the losses were finite. Nothing is saved from them."
                f" Last steps:\n{self.meter.recent_steps()}\n"
                "Lower --lr, or try --precision fp32; the last checkpoint is from before and can be"
                " continued."
            )

    def save(self, path: Path, step: int, **more: Any) -> None:
        """Writes everything after ``step`` steps; raises like ``check`` and ``save_checkpoint``."""
        self.check(step)
        self.step = step
        if self.writes:
            save_checkpoint(
                path,
                self.parts,
                step=step,
                best=self.best,
                random=random_state(self.device),
                **self.metadata,
                **more,
            )

    def save_if_best(self, path: Path, step: int, miou: float) -> None:
        """Writes ``path`` if ``miou`` is the highest so far, marked as chosen with labels."""
        if self.best is None or miou > self.best["miou"]:
            self.best = {"miou": miou, "step": step}
            self.save(path, step, chosen_with_labels=True)

    def resume(self, path: Path, may_change: frozenset[str]) -> None:
        """Restores every part. Raises ValueError that lists changed settings that matter."""
        checkpoint = read_checkpoint(path)
        changed = differences(self.metadata["settings"], checkpoint["settings"], may_change)
        if changed:
            raise ValueError(
                "--resume with settings that change the training, before -> now:"
                f" {'; '.join(changed)}. Give the run's own settings, or start another run with"
                " another --name."
            )
        if self.parts.keys() != checkpoint["parts"].keys():
            raise ValueError(
                f"{path} holds {sorted(checkpoint['parts'])}; this run needs {sorted(self.parts)}."
                " Another script made it."
            )
        for name, part in self.parts.items():
            part.load_state_dict(checkpoint["parts"][name])
        set_random_state(checkpoint["random"], self.device)
        self.step, self.best = checkpoint["step"], checkpoint["best"]


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of torch's generators, of the CPU and of the device in use."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Puts back what ``random_state`` gave; a device that the state does not know keeps its own."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
