"""The commands of a row: made from a preset, compared with those of before, run."""

import difflib
import hashlib
import json
import shlex
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from scripts.reproduce.preset import Preset, Row
from utils.child import run_child
from utils.files import output_folder, write_json
from utils.options.parser import user_path
from utils.options.renamed import new_arguments
from utils.training.checkpoint import read_checkpoint

COMPUTE = ("--device", "--precision", "--workers")
MAY_DIFFER = frozenset(
    ("--gta5", "--source", "--cityscapes", "--target", "--output", "--json", "--resume")
    + ("--device", "--workers", "--log-every", "--save-every", "--panel-every", "--leave-out")
    + ("--keep-every", "--keep-last", "--stop-on-collapse", "--collapse-window")
)
"""Flags that do not say what is trained: where data and results lie, where it is computed."""
ORIGINS = "origins.json"
"""In a run folder: {folder or file: digest} of what it began from: weights of other rows, and the
recipes, class sets and lists that its command names.
"""


def row_commands(
    preset: Preset,
    row: Row,
    seed: int,
    values: dict[str, Any],
    classes: list[str] | None,
    training: list[str],
) -> list[list[str]]:
    """The training command of a row as words, then its evaluation command if it is scored.

    ``values``: of the PLACEHOLDERS; ``classes``: None: those of the preset's evaluation, else all;
    ``training``: further arguments of the training command.
    """
    quoted = quoted_values(values)
    script, *own = row.command.split(maxsplit=1)
    # The row's own flags come last: they replace the common ones.
    words = shlex.split(" ".join([script, preset.common, *own]).format(**quoted))
    output = Path(values["output"])
    train = [*words, "--seed", str(seed), "--output", str(output), "--name", row.folder, *training]
    if not row.scored:
        return [train]
    checkpoint, scores = output / row.folder / "last.pt", output / f"{row.folder}.json"
    evaluate = ["eval.py", str(checkpoint), "--cityscapes", str(values["cityscapes"])]
    averaged = ["--classes", *classes] if classes else []
    evaluate += [*shlex.split(preset.evaluation.format(**quoted)), *averaged, "--json", str(scores)]
    return [train, [*evaluate, *compute_flags(training)]]


def quoted_values(values: dict[str, Any]) -> dict[str, str]:
    """Values as they are filled into the text of a command."""
    return {name: shlex.quote(str(value)) for name, value in values.items()}


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


def compute_flags(training: list[str]) -> list[str]:
    """Those of the further arguments that say where to compute: scoring has them, too."""
    found = {name: values for name, values in flags_of(training).items() if name in COMPUTE}
    return [word for name, values in found.items() for word in (name, *values)]


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


def digests_of(origins: Sequence[Path]) -> dict[str, str]:
    """{folder: digest} of the last checkpoints of run folders, of those that are there."""
    files = {origin.name: origin / "last.pt" for origin in origins}
    return {name: weights_digest(file) for name, file in files.items() if file.exists()}


def file_digests(train: list[str]) -> dict[str, str]:
    """{file: digest} of the TOML files and lists that a command names, whatever their comments."""
    words = [word for values in flags_of(train).values() for word in values]
    files = {word: user_path(word) for word in words if word.endswith((".toml", ".txt"))}
    texts = {
        word: path.read_text(encoding="utf-8", errors="replace")
        for word, path in files.items()
        if path.is_file()
    }
    return {
        word: hashlib.sha256(repr(_settings(word, text)).encode()).hexdigest()
        for word, text in texts.items()
    }


def _settings(name: str, text: str) -> Any:
    """What a file says: the content of a TOML file, the words of a list."""
    try:
        return tomllib.loads(text) if name.endswith(".toml") else text.split()
    except tomllib.TOMLDecodeError:  # the training says it
        return text


def require_same_origins(origins: dict[str, str], run: Path) -> None:
    """Raises FileExistsError where ``run`` began from other weights or settings than ``origins``.

    ``origins``: of ``digests_of`` and ``file_digests``.
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
    now, before = (["eval.py", *without_all_classes(words[2:])] for words in (evaluate, argv))
    return not changed_flags(now, before)


def without_all_classes(words: list[str]) -> list[str]:
    """The words of eval.py without --classes 19, which earlier versions gave for all classes."""
    if flags_of(words).get("--classes") != ["19"]:
        return words
    position = words.index("--classes")
    return [*words[:position], *words[position + 2 :]]


def read_record(path: Path) -> Any:
    """The content of a JSON file; None where it is absent or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def run_command(command: list[str], show: bool = True, quiet: bool = False) -> None:
    """Runs a command of this project; ``quiet``: without what it prints, but for errors.

    Raises ChildProcessError where it fails.
    """
    if show:
        print(f"\n$ python {shlex.join(command)}", flush=True)
    code, stopped_by = run_child([sys.executable, *command], quiet)
    if stopped_by:
        raise ChildProcessError(
            f"Stopped by {stopped_by}. Run this again to go on: finished rows are kept, and a"
            " training goes on where it saved."
        )
    if code:
        script = command[1] if command[0] == "-m" else command[0]
        raise ChildProcessError(
            f"{script} ended with {code}; see above. Fix its cause and run this again: finished"
            " rows are kept."
        )


def is_finished(commands: list[list[str]], run: Path) -> bool:
    """Whether a row has scores and config.json; its checkpoint may have been deleted."""
    scores, evaluation = run.with_name(f"{run.name}.json"), commands[1:]
    is_done = all(is_scored(command, scores) for command in evaluation)
    return bool(evaluation) and is_done and (run / "config.json").exists()


def is_old_start(row: Row, commands: dict[Row, list[list[str]]], output: Path) -> bool:
    """Whether an unscored row is gone, and not needed: all rows that began from it have weights or
    scores of their own.

    ``commands``: of all rows that were asked for; ``output``: the folder of the seed.
    """
    followers = [other for other in commands if row.folder in other.origins]
    need_none = [
        (output / other.folder / "last.pt").exists()
        or is_finished(commands[other], output / other.folder)
        for other in followers
    ]
    is_gone = not (output / row.folder / "last.pt").exists()
    return not row.scored and is_gone and bool(need_none) and all(need_none)


def run_row(
    commands: list[list[str]], run: Path, quiet: bool = False, origins: Sequence[Path] = ()
) -> None:
    """Trains a row, from its last checkpoint if there is one, and scores it, perhaps ``quiet``.

    What is there is kept only if the same was asked for. ``origins``: run folders of the rows that
    it begins from. Raises ChildProcessError where a command fails or the training is stopped,
    FileExistsError for a run of another command or from other origins.
    """
    train, *evaluation = commands
    last, scores = run / "last.pt", run.with_name(f"{run.name}.json")
    finished, is_begun = is_finished(commands, run), last.exists()
    require_same_training(commands, run)
    if (finished or is_begun) and (run / ORIGINS).exists():
        require_same_origins(digests_of(origins) | file_digests(train), run)
    if finished:
        return
    if not last.exists() and scores.exists():
        raise FileNotFoundError(
            f"{scores} is there, but of another command or without its run folder, and {last} is"
            " gone: it cannot be scored again. Give the arguments of before, or delete the .json"
            " file to train the row anew."
        )
    if not is_begun and (digests := digests_of(origins) | file_digests(train)):
        write_json(output_folder(run) / ORIGINS, digests)
    if not (last.exists() and read_checkpoint(last).get("finished")):
        run_command([*train, "--resume"] if last.exists() else train)
        if not read_checkpoint(last).get("finished"):
            raise ChildProcessError(f"{run} was stopped before its end. Run this again to go on.")
    for command in evaluation:
        if not is_scored(command, scores):
            run_command(command, quiet=quiet)


def require_known_origins(preset: Preset, row: Row, output: Path) -> None:
    """Raises FileNotFoundError where ``row`` begins from a folder of ``output`` that is no row."""
    folders = [other.folder for other in preset.rows]
    for name in row.origins:
        if name not in folders and not (output / name).exists():
            near = difflib.get_close_matches(name, folders, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise FileNotFoundError(
                f"The row {row.name!r} begins from {{output}}/{name}: no row of the preset has this"
                f" folder, and {output / name} is not there.{hint}"
            )


def needed_rows(preset: Preset, names: list[str] | None) -> set[str]:
    """The rows called ``names`` (None: all), and those whose checkpoints they begin from."""
    waiting, needed = list(names or [row.name for row in preset.rows]), set()
    while waiting:
        name = waiting.pop()
        needed.add(name)
        origins = next(row.origins for row in preset.rows if row.name == name)
        waiting += [
            row.name for row in preset.rows if row.folder in origins and row.name not in needed
        ]
    return needed
