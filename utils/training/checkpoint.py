"""Checkpoints: one file of tensors and plain values, written atomically.

It is read with ``weights_only=True``, so that a stranger's file cannot run code.
"""

import difflib
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor

from utils.files import atomic_file, is_full
from utils.options.renamed import RENAMED_KEYS, RENAMED_PARTS, new_settings
from utils.training.meters import LossMeter, not_finite

FORMAT, OLD_FORMAT = "bisenet-domain-adaptation 2", "bisenet-domain-adaptation 1"
READ_AT_THE_START = ("init", "backbone_weights")
"""Settings that only the first start of a run reads: a resumed run keeps its own."""
RESUME_HINTS = (
    (
        "batch_norm_",
        "BatchNorm's groups and updates follow from --batch-size, --accumulate, --bn and the number"
        " of processes.",
    ),
    ("schedule_steps", "Without --schedule-steps, train.py's schedule ends with --max-steps."),
    ("_fingerprint", "A damaged image is left out by --leave-out NAME."),
)
"""What settings that are perhaps no flags depend on, by a part of their names."""


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
    except (OSError, RuntimeError) as failure:
        # torch reports a full disk as a RuntimeError about positions in the file.
        error = failure.__context__ if is_full(failure.__context__) else failure
        kept = f"The previous {path.name} is intact. " if path.exists() else ""
        remedy = "Make room or choose" if may_be_full(error) else "Choose"
        raise OSError(
            f"Could not write {path} ({error}). {kept}{remedy} another --output, then continue with"
            " --resume."
        ) from error


def may_be_full(error: BaseException | None) -> bool:
    """Whether the disk may have been full; torch reports that as RuntimeError."""
    return isinstance(error, RuntimeError) or is_full(error)


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
    return {name: _plain(value) for name, value in settings.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def differences(
    now: dict[str, Any], before: dict[str, Any], may_change: frozenset[str]
) -> list[str]:
    """Settings of ``now`` that were others before and matter, each as "name: before -> now".

    What ``before`` does not hold is not compared.
    """
    return [
        f"{name}: {before[name]} -> {value}"
        for name, value in sorted(now.items())
        if name in before and name not in may_change and value != before[name]
    ]


def is_named(name: str, words: Sequence[str]) -> bool:
    """Whether an image is one of the ``words`` of --leave-out: names, or paths of files.

    Folders that both have are equal: drive1/0001.png is not drive2/0001.
    """
    own = Path(name).parts
    paths = [path for word in words for path in (Path(word), Path(word).with_suffix(""))]
    return any(path.parts[-len(own) :] == own[-len(path.parts) :] for path in paths)


def require_known_words(words: Sequence[str], left_out: Sequence[str], names: list[str]) -> None:
    """Raises ValueError where one of the ``words`` of --leave-out names no image.

    ``left_out``: the images that they leave out, and that they left out before. ``names``: all
    others of the run.
    """
    unknown = [word for word in words if not any(is_named(name, [word]) for name in left_out)]
    if unknown:
        lasts = {name.rsplit("/", 1)[-1]: name for name in names}
        word = Path(unknown[0]).stem
        nearest = difflib.get_close_matches(word, lasts, n=1, cutoff=0.0)
        found = f"; the nearest name there is {lasts[nearest[0]]!r}" if nearest else ""
        raise ValueError(
            f"--leave-out {unknown[0]}: none of the run's images has this name{found}. Correct it,"
            " or remove it."
        )


def removed_alone(now: list[str], before: list[str], words: Sequence[str]) -> bool:
    """Whether ``now`` is ``before`` without some images, all of which ``words`` name."""
    present = set(now)
    kept = [name for name in before if name in present]
    return kept == now and all(is_named(name, words) for name in set(before) - present)


def equal_image_lists(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """Settings that stand for images, where ``now`` has those of ``before``.

    Images that --leave-out of ``now`` names may be missing. Both are metadata of runs.
    """
    words, names_before = now["settings"].get("leave_out") or (), before.get("data_names", {})
    return [
        key
        for key, names in now.get("data_names", {}).items()
        if key in names_before and removed_alone(names, names_before[key], words)
    ]


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
                "Lower --lr, or try --precision fp32; a checkpoint that was saved before is intact"
                " and can be continued."
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

    def resume(
        self, path: Path, may_change: frozenset[str], defaults: dict[str, Any] | None = None
    ) -> None:
        """Restores every part. Raises ValueError that lists changed settings that matter.

        ``defaults``: plain values of flags, for those that are younger than the checkpoint. Where
        the weights come from is carried on: ``seen_images``, ``labelled_images``,
        ``unknown_weights``, ``chosen_with_labels``.
        """
        checkpoint, script = read_checkpoint(path), self.metadata.get("script")
        if checkpoint.get("script", script) != script:
            raise ValueError(
                f"{path} is of {checkpoint['script']}.py, and this is {script}.py: it cannot go on."
                " To begin another run with its network, give --init and this file, another --name,"
                " and no --resume."
            )
        changed = self._changes(checkpoint, may_change, defaults or {})
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

    def _changes(
        self, checkpoint: dict[str, Any], may_change: frozenset[str], defaults: dict[str, Any]
    ) -> list[str]:
        """The changed settings and data. An image that --leave-out names may be missing."""
        now, before = self.metadata["settings"], defaults | checkpoint["settings"]
        words, before_names = now.get("leave_out") or (), checkpoint.get("data_names", {})
        before |= {key: now[key] for key in equal_image_lists(self.metadata, checkpoint)}
        changed = differences(now, before, may_change)
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


def metadata_of_network(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of its network, for a new one: without parts and state of the run."""
    of_run = {"format", "parts", "random", "meter", "monitors", "inference_network"}
    of_run |= {"collapse_monitor"}  # of older checkpoints
    return {name: value for name, value in checkpoint.items() if name not in of_run}


def labelled_images(checkpoint: dict[str, Any]) -> list[str]:
    """Images of a target whose true labels a network learned from, also through others.

    ``checkpoint``: one, or a part of its metadata; older ones tell by their settings.
    """
    trained_on = checkpoint.get("settings", {}).get("train_on")
    seen = checkpoint.get("seen_images", []) if trained_on == "target" else []
    return checkpoint.get("labelled_images", seen)


def inherited(
    seen: Sequence[str], *origins: dict[str, Any], labelled: Sequence[str] = ()
) -> dict[str, Any]:
    """Metadata of a network that learned from the images ``seen``, and from other networks.

    ``origins``: checkpoints, or parts of their metadata. ``labelled``: images of the target whose
    true labels it learned from.
    """
    old = [name for origin in origins for name in origin.get("seen_images", [])]
    metadata: dict[str, Any] = {"seen_images": list(dict.fromkeys([*seen, *old]))}
    true = [name for origin in origins for name in labelled_images(origin)]
    if labelled or true:
        metadata["labelled_images"] = list(dict.fromkeys([*labelled, *true]))
    unknown = [name for origin in origins for name in origin.get("unknown_weights", [])]
    if unknown:
        metadata["unknown_weights"] = list(dict.fromkeys(unknown))
    if any(origin.get("chosen_with_labels") for origin in origins):
        metadata["chosen_with_labels"] = True
    return metadata


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
