"""Trains and scores every row of a comparison for several seeds, then writes tables and a report.

Started again, it continues where it was stopped. A row is a command of train.py or train_da.py and
one of eval.py; --dry-run prints them. Tables and report are made by scripts.summarise.
"""

if not __package__:  # started by its path: nothing of the project can be imported
    raise SystemExit("error: start it in the project's folder: python -m scripts.reproduce")

import argparse
import json
import re
import shlex
import string
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset.toml_file import read_toml
from utils.child import run_child
from utils.files import output_folder, write_json
from utils.options.groups import add_source_argument
from utils.options.parser import (
    new_parser,
    non_negative_int,
    positive_int,
    user_errors_without_traceback,
)
from utils.options.renamed import new_arguments
from utils.training.checkpoint import read_checkpoint

EPILOG = """examples:
  python -m scripts.reproduce --preset paper --gta5 $GTA5 --cityscapes $CITYSCAPES --seeds 0 1 2 \\
      --output checkpoints/paper
  python -m scripts.reproduce --preset small --gta5 $CARLA --cityscapes $CITYSCAPES_SMALL \\
      --classes carla13 --output checkpoints/carla
  what follows -- goes to every training command:
  python -m scripts.reproduce --preset demo --gta5 demo_data/gta5 \\
      --cityscapes demo_data/cityscapes -- --device cpu --workers 1
"""
PRESET_FOLDER = Path(__file__).with_name("presets")
OLD_PRESETS = {"beyond": "extended", "beyond-gpu": "extended-gpu"}
PLACEHOLDERS = {"gta5", "cityscapes", "steps", "twice_steps", "output"}
"""Filled into commands: data sets, steps of a row and twice as many, the seed's folder."""
COMPUTE = ("--device", "--precision", "--workers")
MAY_DIFFER = frozenset(
    ("--gta5", "--source", "--cityscapes", "--target", "--output", "--init", "--json", "--resume")
    + ("--device", "--workers", "--log-every", "--save-every", "--panel-every", "--leave-out")
    + ("--keep-every", "--keep-last", "--stop-on-collapse", "--collapse-window")
)
"""Flags that do not say what is trained: where data and results lie, where it is computed."""


@dataclass(frozen=True)
class Row:
    """A row: its training command without the arguments that all rows share."""

    name: str
    command: str
    scored: bool = True
    """False: trained as a start for other rows, and in no table."""
    single_seed: bool = False
    """True: trained with the first of the seeds only."""

    @property
    def folder(self) -> str:
        """ "source-only + LAB" -> "source-only-lab"."""
        return self.name.lower().replace(" + ", "-").replace(" ", "-")


@dataclass(frozen=True)
class Preset:
    """A comparison: its rows and the arguments that their commands share."""

    name: str
    description: str
    rows: tuple[Row, ...]
    steps: int | None = None
    """Default of --steps; None: the steps are those of the recipes."""
    common: str = ""
    """Arguments of every training command, before those of the row."""
    evaluation: str = ""
    """Arguments of every evaluation command."""
    published: bool = False
    """Whether tables show the paper's rows too."""


def read_preset(path: Path) -> Preset:
    """Reads a preset from TOML: the fields of ``Preset``, and [parts] that commands can name.

    Raises ValueError for unknown fields and placeholders.
    """
    try:
        content = read_toml(path, PRESET_FOLDER, "preset")[1]
        parts = content.pop("parts", {})
        rows = [
            Row(**row | {"command": _expand(row["command"], parts)}) for row in content.pop("rows")
        ]
        preset = Preset(path.stem, rows=tuple(rows), **content)
    except (TypeError, KeyError) as error:
        raise ValueError(
            f"{path} is no preset ({error}). Compare it with {PRESET_FOLDER / 'demo.toml'}."
        ) from error
    fields = placeholders(preset)
    if unknown := fields - PLACEHOLDERS:
        raise ValueError(
            f"{path} names {{{min(unknown)}}}. Expected one of its parts, or of"
            f" {', '.join(sorted(PLACEHOLDERS))}."
        )
    if preset.steps is None and fields & {"steps", "twice_steps"}:
        raise ValueError(f"{path} uses {{steps}} without a default. Add a line: steps = 1_000")
    return preset


def placeholders(preset: Preset) -> set[str]:
    """The names in braces in the commands of a preset."""
    texts = (preset.common, *(row.command for row in preset.rows))
    fields = (field for text in texts for _, field, _, _ in string.Formatter().parse(text))
    return {field for field in fields if field is not None}


def _expand(text: str, parts: dict[str, str]) -> str:
    """Replaces the names of ``parts`` in braces by their texts, also inside parts."""
    for _ in range(len(parts)):
        for name, part in parts.items():
            text = text.replace(f"{{{name}}}", part)
    return text


def preset_names() -> list[str]:
    """Names of the files in scripts/presets/."""
    return sorted(path.stem for path in PRESET_FOLDER.glob("*.toml"))


def preset_argument(word: str) -> Preset:
    """An argparse type: the name of a preset, or the path of a TOML file."""
    if word in OLD_PRESETS:
        raise argparse.ArgumentTypeError(f"{word!r} is now called {OLD_PRESETS[word]!r}")
    path = Path(word) if word.endswith(".toml") else PRESET_FOLDER / f"{word}.toml"
    if not path.is_file():
        raise argparse.ArgumentTypeError(
            f"no preset {word!r}: expected one of {', '.join(preset_names())}, or a FILE.toml"
        )
    try:
        return read_preset(path)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def describe_presets() -> str:
    """A line for each preset, for the help."""
    presets = [read_preset(PRESET_FOLDER / f"{name}.toml") for name in preset_names()]
    lines = [
        f"  {preset.name:13} {preset.description}"
        + (f"; {preset.steps:,} steps" if preset.steps else "")
        for preset in presets
    ]
    return "\n".join(["presets (scripts/presets/*.toml):", *lines])


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(f"{__doc__}\n{describe_presets()}", EPILOG)
    parser.add_argument(
        "--preset",
        type=preset_argument,
        default="demo",
        metavar="NAME|FILE.toml",
        help="which comparison",
    )
    add_source_argument(parser, required=True)
    parser.add_argument(
        "--target",
        "--cityscapes",
        dest="cityscapes",
        type=Path,
        metavar="ROOT",
        required=True,
        help="target, in the layout of Cityscapes",
    )
    add_comparison_arguments(parser)
    args = parser.parse_args(argv)
    names = [row.name for row in args.preset.rows]
    if unknown := [name for name in args.rows or () if name not in names]:
        parser.error(
            f"the preset {args.preset.name!r} has no row {unknown[0]!r}; its rows are:"
            f" {', '.join(names)}"
        )
    if args.steps and args.preset.steps is None:
        parser.error(
            f"the rows of {args.preset.name!r} take their steps from the recipes: leave --steps"
            " out, or end with: -- --max-steps N"
        )
    return args


def add_comparison_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seeds",
        type=non_negative_int,
        nargs="+",
        default=[0],
        metavar="SEED",
        help="every row is trained once with each",
    )
    parser.add_argument(
        "--rows", nargs="+", metavar="ROW", help="train only these rows, and what they need"
    )
    parser.add_argument("--steps", type=positive_int, help="steps of a row; default: the preset's")
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="SUBSET|NAME",
        help="classes that means are taken over, as in eval.py; default: all",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("checkpoints/reproduce"),
        metavar="FOLDER",
        help="receives FOLDER/seedN/ROW, the tables and report.html",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands only")
    parser.add_argument(
        "--one-table",
        action="store_true",
        help="print one table at the end, not one after every row",
    )
    parser.add_argument(
        "training",
        nargs="*",
        metavar="-- ARGUMENT",
        help="further arguments of every training command, after --",
    )


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
    quoted = {name: shlex.quote(str(value)) for name, value in values.items()}
    script, own = row.command.split(maxsplit=1)
    # The row's own flags come last: they replace the common ones.
    words = shlex.split(f"{script} {preset.common} {own}".format(**quoted))
    output = Path(values["output"])
    train = [*words, "--seed", str(seed), "--output", str(output), "--name", row.folder, *training]
    if not row.scored:
        return [train]
    checkpoint, scores = output / row.folder / "last.pt", output / f"{row.folder}.json"
    evaluate = ["eval.py", str(checkpoint), "--cityscapes", str(values["cityscapes"])]
    averaged = ["--classes", *classes] if classes else []
    evaluate += [*shlex.split(preset.evaluation), *averaged, "--json", str(scores)]
    return [train, [*evaluate, *compute_flags(training)]]


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
    new, old = flags_of(now), flags_of(before)
    return [
        f"{flag or 'script'}: {' '.join(old[flag]) if flag in old else 'left out'} ->"
        f" {' '.join(new[flag]) if flag in new else 'left out'}"
        for flag in sorted(new.keys() | old.keys())
        if flag not in MAY_DIFFER and new.get(flag) != old.get(flag)
    ]


def require_same_training(train: list[str], run: Path) -> None:
    """Raises FileExistsError where ``run`` was started by another command than ``train``."""
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
    place = words.index("--classes")
    return [*words[:place], *words[place + 2 :]]


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
        raise ChildProcessError(
            f"{command[0]} ended with {code}; see above. Fix its cause and run this again: finished"
            " rows are kept."
        )


def run_row(commands: list[list[str]], run: Path, quiet: bool = False) -> None:
    """Trains a row, from its last checkpoint if there is one, and scores it, perhaps ``quiet``.

    A row with scores and config.json is finished, even if its checkpoint has been deleted. What is
    there is kept only if the same was asked for. Raises ChildProcessError where a command fails or
    the training is stopped, FileExistsError for a run of another command.
    """
    train, *evaluation = commands
    last, scores = run / "last.pt", run.with_name(f"{run.name}.json")
    require_same_training(train, run)
    is_done = all(is_scored(command, scores) for command in evaluation)
    if evaluation and is_done and (run / "config.json").exists():
        return
    if not last.exists() and scores.exists():
        raise FileNotFoundError(
            f"{scores} was scored by another command, and {last} is gone: it cannot be scored"
            " again. Give the arguments of before, or delete the .json file to train the row anew."
        )
    if not (last.exists() and read_checkpoint(last).get("finished")):
        run_command([*train, "--resume"] if last.exists() else train)
        if not read_checkpoint(last).get("finished"):
            raise ChildProcessError(f"{run} was stopped before its end. Run this again to go on.")
    for command in evaluation:
        if not is_scored(command, scores):
            run_command(command, quiet=quiet)


def needed_rows(preset: Preset, names: list[str] | None) -> set[str]:
    """The rows called ``names`` (None: all), and those whose checkpoints they begin from."""
    waiting, needed = list(names or [row.name for row in preset.rows]), set()
    while waiting:
        name = waiting.pop()
        needed.add(name)
        command = next(row.command for row in preset.rows if row.name == name)
        folders = re.findall(r"\{output\}/([^/\s]+)/", f"{command} {preset.common}")
        waiting += [
            row.name for row in preset.rows if row.folder in folders and row.name not in needed
        ]
    return needed


def write_comparison(args: argparse.Namespace) -> None:
    """Writes comparison.json: what scripts.summarise cannot read from the run folders."""
    preset, scoring = args.preset, flags_of(shlex.split(args.preset.evaluation))
    list_file, layout = (scoring.get(flag, [None])[0] for flag in ("--list", "--layout"))
    content = {
        "preset": preset.name,
        "published": preset.published,
        "rows": {row.folder: row.name for row in preset.rows if row.scored},
        "single_seed": [row.name for row in preset.rows if row.single_seed],
        "cityscapes": str(args.cityscapes),
        "gta5": str(args.gta5),
        "list": list_file,
        "layout": layout,
    }
    write_json(output_folder(args.output) / "comparison.json", content)


def main(args: argparse.Namespace) -> None:
    preset = args.preset
    steps = args.steps or preset.steps or 0
    rows = needed_rows(preset, args.rows)
    roots = {"gta5": args.gta5, "cityscapes": args.cityscapes}
    if not args.dry_run:
        write_comparison(args)
    for seed in args.seeds:
        output = args.output / f"seed{seed}"
        values = {**roots, "steps": steps, "twice_steps": 2 * steps, "output": output}
        for row in preset.rows:
            if row.name not in rows:
                continue
            if row.single_seed and seed != args.seeds[0]:
                continue
            commands = row_commands(preset, row, seed, values, args.classes, args.training)
            if args.dry_run:
                print(*(f"python {shlex.join(command)}" for command in commands), sep="\n")
            else:
                run_row(commands, output / row.folder, args.one_table)
    if any(args.output.glob("seed*/*.json")) and not args.dry_run:
        run_command(["-m", "scripts.summarise", str(args.output)], show=False)


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
