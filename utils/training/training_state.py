"""The state of a run: everything that it needs to continue as if it had never stopped."""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from utils.training.checkpoint import Stateful, read_checkpoint, save_checkpoint
from utils.training.meters import NOT_FINITE_REMEDY, LossMeter, not_finite
from utils.training.provenance import inherited
from utils.training.resume_changes import (
    RESUME_HINTS,
    differences,
    equal_image_lists,
    is_named,
    require_known_words,
)

READ_AT_THE_START = ("init", "backbone_weights")
"""Settings that only the first start of a run reads: a resumed run keeps its own."""


class TrainingState:
    """Everything that a run needs to continue as if it had never stopped.

    ``parts``: the stateful objects. ``metadata``: plain values that describe the run: name,
    architecture, input, settings, ... Order and augmentation of the data are functions of the seed
    and the step, so the step is enough for them. Values that are not finite are never written,
    neither losses that ``meter`` noted nor parts. All processes call ``save``; one ``writes``.
    ``monitors``: by name; their states are saved beside the parts.
    """

    def __init__(
        self,
        parts: dict[str, Stateful],
        metadata: dict[str, Any],
        device: torch.device,
        meter: LossMeter,
        writes: bool = True,
        monitors: Mapping[str, Stateful] = MappingProxyType({}),
    ):
        self.parts, self.metadata, self.device = parts, metadata, device
        self.monitors = monitors
        self.meter, self.writes = meter, writes
        self.step, self.best, self.validation_due, self.finished = 0, None, False, False

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
                f"{NOT_FINITE_REMEDY}"
            )

    def save(self, path: Path, step: int, **more: Any) -> None:
        """Writes everything after ``step`` steps; raises like ``check`` and ``save_checkpoint``."""
        self.check(step)
        meter = self.meter.state()
        self.step = step
        if self.writes:
            state = {"step": step, "best": self.best, "random": random_state(self.device)}
            states = {name: monitor.state_dict() for name, monitor in self.monitors.items()}
            state["monitors"] = states
            save_checkpoint(path, self.parts, **self.metadata | state | {"meter": meter} | more)

    def save_if_best(self, path: Path, step: int, miou: float) -> None:
        """Writes ``path`` if ``miou`` is the highest so far, marked as chosen with labels."""
        if miou == miou and (self.best is None or miou > self.best["miou"]):
            self.best = {"miou": miou, "step": step}
            self.save(path, step, chosen_with_labels=True)

    def resume(self, path: Path, defaults: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Restores every part. Raises ValueError that lists changed settings that matter.

        ``defaults``: plain values of flags, for those that are younger than the checkpoint. Where
        the weights come from is carried on: ``seen_images``, ``labelled_images``,
        ``unknown_weights``, ``chosen_with_labels``.
        """
        # The checkpoint must be of this run: of its script, its settings and its parts.
        checkpoint, script = read_checkpoint(path), self.metadata.get("script")
        if checkpoint.get("script", script) != script:
            raise ValueError(
                f"{path} is of {checkpoint['script']}.py, and this is {script}.py: it cannot go on."
                " To begin another run with its network, give --init and this file, another --name,"
                " and no --resume."
            )
        changed = self._changes(checkpoint, defaults)
        if changed:
            text = "; ".join(changed)
            hints = "".join(f" {hint}" for name, hint in RESUME_HINTS if name in text)
            raise ValueError(
                f"--resume with settings that change the training, before -> now: {text}. Give the"
                f" run's own settings, or start another run with another --name.{hints}"
            )
        if self.parts.keys() != checkpoint["parts"].keys():
            raise ValueError(
                f"{path} holds {sorted(checkpoint['parts'])}; this run needs {sorted(self.parts)}."
                " Another script made it."
            )

        # The state of everything.
        for name, part in self.parts.items():
            try:
                part.load_state_dict(checkpoint["parts"][name])
            except (RuntimeError, ValueError, KeyError) as error:
                raise ValueError(
                    f"{path}: its {name} does not fit this run ({_first_lines(error)}). Give the"
                    " settings, the libraries and the other networks (--teachers) of the run that"
                    " wrote it, or start another run with another --name."
                ) from error
        set_random_state(checkpoint["random"], self.device)
        self.step, self.best = checkpoint["step"], checkpoint["best"]
        self.validation_due = checkpoint.get("validation_due", False)
        self.finished = checkpoint.get("finished", False)
        self.meter.restore(checkpoint.get("meter"), self.device)
        # Older checkpoints hold the collapse monitor by itself, or none.
        states = checkpoint.get("monitors", checkpoint)
        for name, monitor in self.monitors.items():
            if name in states:
                monitor.load_state_dict(states[name])

        # What its weights learned from, and began with, is carried on.
        seen, labelled = (self.metadata.get(k, []) for k in ("seen_images", "labelled_images"))
        self.metadata |= inherited(seen, checkpoint, labelled=labelled)
        before = checkpoint["settings"]
        kept = {key: before[key] for key in READ_AT_THE_START if key in before}
        self.metadata["settings"] = self.metadata["settings"] | kept

    def unread_init(self, asked: str | None) -> str | None:
        """A note for an --init that was ``asked`` for and that a resumed run did not begin from."""
        kept = self.metadata["settings"].get("init")
        if asked in (None, kept):
            return None
        origin = f"from {kept}" if kept else "without --init"
        return f"NOTE: --init {asked}: without effect with --resume; this run began {origin}."

    def require_left_out(self) -> None:
        """Raises ValueError where a word of --leave-out names no image of a new run."""
        words = self.metadata["settings"].get("leave_out") or ()
        require_known_words(words, self.metadata.get("left_out", []), self._names())

    def _names(self) -> list[str]:
        return list(chain(*self.metadata.get("data_names", {}).values()))

    def _changes(self, checkpoint: dict[str, Any], defaults: Mapping[str, Any]) -> list[str]:
        """The changed settings and data. An image that --leave-out names may be missing."""
        now, before = self.metadata["settings"], {**defaults, **checkpoint["settings"]}
        words, before_names = now.get("leave_out") or (), checkpoint.get("data_names", {})
        before |= {key: now[key] for key in equal_image_lists(self.metadata, checkpoint)}
        changed = differences(now, before)
        classes, old_classes = self.metadata.get("class_set"), checkpoint.get("class_set")
        if classes and old_classes and classes != old_classes:
            changed.append(f"classes: {_class_text(old_classes)} -> {_class_text(classes)}")
        known = [*self.metadata.get("left_out", []), *checkpoint.get("left_out", [])]
        known += chain(*before_names.values())
        require_known_words(words, known, self._names())
        self.metadata["left_out"] = sorted({name for name in known if is_named(name, words)})
        hashes, old = self.metadata.get("label_hashes", {}), checkpoint.get("label_hashes", {})
        others = [name for name in hashes if old.get(name, hashes[name]) != hashes[name]]
        if others:
            changed.append(f"pseudo-labels: {len(others)} have other content, first {others[0]}")
        return changed


def _first_lines(error: Exception) -> str:
    """What a failed ``load_state_dict`` says, without its list of every weight."""
    return " ".join(str(error).split())[:200]


def _class_text(class_set: dict[str, Any]) -> str:
    return f"{class_set['name']} ({', '.join(class_set['classes'])})"


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
