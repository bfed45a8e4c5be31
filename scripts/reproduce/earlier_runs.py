"""What an earlier start left of a row: was it made by the same command, weights and files?"""

import hashlib
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from utils.options.parser import user_path
from utils.options.renamed import new_arguments
from utils.training.checkpoint import read_checkpoint

MAY_DIFFER = frozenset(
    ("--gta5", "--source", "--cityscapes", "--target", "--output", "--json", "--resume")
    + ("--device", "--workers", "--log-every", "--save-every", "--panel-every", "--leave-out")
    + ("--keep-every", "--keep-last", "--stop-on-collapse", "--collapse-window")
)
"""Flags that do not say what is trained: where data and results lie, where it is computed."""
ORIGINS = "origins.json"
"""The file of ``origin_digests`` in a run folder."""


def read_record(path: Path) -> Any:
    """The content of a JSON file; None where it is absent or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def flags_of(words: list[str]) -> dict[str, list[str]]:
    """{flag: its values} of a command line, the last of each; "" has the words before the first."""
    flags, flag = {"": []}, ""
    for word in words:
        if word.startswith("--"):
            flag, *value = word.split("=", 1)
            flags[flag] = value
        else:
            flags[flag].append(word)
    return flags


def changed_flags(now: list[str], before: list[str]) -> list[str]:
    """Flags of two commands that differ and matter, each as "flag: before -> now"."""
    new, old = flags_of(_in_any_folder(now)), flags_of(_in_any_folder(before))
    return [
        f"{flag or 'script'}: {' '.join(old[flag]) if flag in old else 'left out'} ->"
        f" {' '.join(new[flag]) if flag in new else 'left out'}"
        for flag in sorted(new.keys() | old.keys())
        if flag not in MAY_DIFFER and new.get(flag) != old.get(flag)
    ]


def _in_any_folder(words: list[str]) -> list[str]:
    """A command without the place of its --output: files of other rows lie in it."""
    output = flags_of(words).get("--output", [])
    return [word.replace(f"{output[0]}/", "{output}/") if output else word for word in words]


def require_same_training(commands: list[list[str]], run: Path) -> None:
    """Raises FileExistsError where ``run`` was trained by another command than ``commands`` have.

    Not where a row that is scored has neither a checkpoint nor scores: it begins anew.
    """
    train, *evaluation = commands
    kept = (run / "last.pt", run.with_name(f"{run.name}.json"))
    if evaluation and not any(file.exists() for file in kept):
        return
    entries = read_record(run / "config.json")
    if not entries or "argv" not in entries[0]:
        return
    changed = changed_flags(train, new_arguments(entries[0]["argv"]))
    if changed:
        raise FileExistsError(
            f"{run} was trained by another command, before -> now: {'; '.join(changed)}. Give the"
            " same arguments, or another --output, or delete this folder and the .json file beside"
            " it to train the row anew."
        )


def weights_digest(file: Path) -> str:
    """A hash of the network for inference in a checkpoint, whatever else the file holds."""
    checkpoint, digest = read_checkpoint(file), hashlib.sha256()
    weights = checkpoint["parts"][checkpoint.get("inference_network", "model")]
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def origin_digests(origins: Sequence[Path], train: list[str]) -> dict[str, str]:
    """{folder or file: digest} of what a training command begins from.

    Folders: ``origins``, the run folders of other rows, by the weights of their last checkpoints.
    Files: the TOML files and lists that the command names, whatever their comments.
    """
    checkpoints = {origin.name: origin / "last.pt" for origin in origins}
    digests = {name: weights_digest(file) for name, file in checkpoints.items() if file.exists()}
    words = [word for values in flags_of(train).values() for word in values]
    for word in words:
        path = user_path(word)
        if word.endswith((".toml", ".txt")) and path.is_file():
            settings = _settings(word, path.read_text(encoding="utf-8", errors="replace"))
            digests[word] = hashlib.sha256(repr(settings).encode()).hexdigest()
    return digests


def _settings(name: str, text: str) -> Any:
    """What a file says: the content of a TOML file, the words of a list."""
    try:
        return tomllib.loads(text) if name.endswith(".toml") else text.split()
    except tomllib.TOMLDecodeError:  # the training says it
        return text


def require_same_origins(origins: dict[str, str], run: Path) -> None:
    """Raises FileExistsError where ``run`` began from other weights or settings than ``origins``.

    ``origins``: of ``origin_digests``.
    """
    before = read_record(run / ORIGINS) or {}
    changed = [name for name in origins if before.get(name, origins[name]) != origins[name]]
    if changed and changed[0].endswith((".toml", ".txt")):
        raise FileExistsError(
            f"{run} was trained when {changed[0]} had another content. Delete this folder and the"
            " .json file beside it to train the row anew, or put the old content back."
        )
    if changed:
        raise FileExistsError(
            f"{run} began from other weights than those of {run.with_name(changed[0])}, which was"
            " trained anew. Delete this folder and the .json file beside it to train the row anew,"
            " or put the old last.pt back."
        )


def is_scored(evaluate: list[str], scores: Path) -> bool:
    """Whether ``scores`` is there, made by the same command or by an older revision."""
    if not scores.exists():
        return False
    record = read_record(scores)
    argv = record.get("argv") if isinstance(record, dict) else None
    if argv is None:
        return True
    now, before = (["eval.py", *_without_all_classes(words[2:])] for words in (evaluate, argv))
    return not changed_flags(now, before)


def _without_all_classes(words: list[str]) -> list[str]:
    """The words of eval.py without --classes 19, which earlier versions gave for all classes."""
    if flags_of(words).get("--classes") != ["19"]:
        return words
    position = words.index("--classes")
    return [*words[:position], *words[position + 2 :]]
