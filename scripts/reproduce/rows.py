"""The commands of a row, made from a preset; runs them unless they have run before."""

import difflib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.reproduce.earlier_runs import (
    ORIGINS,
    flags_of,
    is_scored,
    origin_digests,
    require_same_origins,
    require_same_training,
)
from scripts.reproduce.preset import Preset, Row
from utils.child import run_child
from utils.files import output_folder, write_json
from utils.training.checkpoint import read_checkpoint

COMPUTE = ("--device", "--precision", "--workers")


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


def compute_flags(training: list[str]) -> list[str]:
    """Those of the further arguments that say where to compute: scoring has them, too."""
    found = {name: values for name, values in flags_of(training).items() if name in COMPUTE}
    return [word for name, values in found.items() for word in (name, *values)]


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


def has_seeds(output: Path, folder: str) -> list[str]:
    """Names of the seeds' folders in ``output`` in which a row has a checkpoint or scores."""
    return sorted(
        seed.name
        for seed in output.glob("seed*")
        if (seed / folder / "last.pt").exists() or (seed / f"{folder}.json").exists()
    )


def is_old_start(row: Row, commands: dict[Row, list[list[str]]], output: Path) -> bool:
    """Whether the checkpoint of an unscored row is gone, and is not needed any more: every row that
    began from it has weights or scores of its own.

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
        require_same_origins(origin_digests(origins, train), run)
    if finished:
        return
    if not is_begun and scores.exists():
        raise FileNotFoundError(
            f"{scores} is there, but of another command or without its run folder, and {last} is"
            " gone: it cannot be scored again. Give the arguments of before, or delete the .json"
            " file to train the row anew."
        )
    if not is_begun and (digests := origin_digests(origins, train)):
        write_json(output_folder(run) / ORIGINS, digests)
    if not (is_begun and read_checkpoint(last).get("finished")):
        run_command([*train, "--resume"] if is_begun else train)
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
    needed = set(names or [row.name for row in preset.rows])
    for row in reversed(preset.rows):  # rows begin from earlier ones
        if row.name in needed:
            needed |= {other.name for other in preset.rows if other.folder in row.origins}
    return needed
