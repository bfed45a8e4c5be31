"""Trains and scores every row of a comparison, for several seeds, and writes its tables and report.
Run again, it goes on where it was stopped.

Presets: 'paper' is Tables I and II on GTA5 and Cityscapes, with the paper's lists (a GPU's work of
days). 'small' is the same ladder on a small pair of data sets, BiSeNet-18 from scratch, 1,000 steps
at 128x256 (docs/results.md). 'demo' is shorter still, for generated streets. 'beyond' goes further
than the paper, to self-training, on the small pair; 'beyond-gpu' is its main rows at full size on a
GPU. Each row is a command of train.py or train_da.py and one of eval.py; --dry-run prints them and
does nothing. At the end scripts.summarise makes tables and report; run alone, it makes them again.
"""

import shlex
import subprocess
import sys
from pathlib import Path

from utils.files import output_folder, write_json
from utils.options.parser import (
    new_parser,
    non_negative_int,
    positive_int,
    user_errors_without_traceback,
)
from utils.presets import DEFAULT_STEPS, PRESETS, Preset, Row
from utils.training.checkpoint import read_checkpoint

EPILOG = """examples:
  python -m scripts.reproduce --preset paper --gta5 $GTA5 --cityscapes $CITYSCAPES --seeds 0 1 2 --output checkpoints/paper
  python -m scripts.reproduce --preset small --gta5 $CARLA --cityscapes $CITYSCAPES_SMALL --classes carla13 --output checkpoints/carla
  what follows -- goes to every training command:
  python -m scripts.reproduce --preset demo --gta5 demo_data/gta5 --cityscapes demo_data/cityscapes -- --device cpu --workers 1
"""


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__, EPILOG)
    parser.add_argument("--preset", choices=tuple(PRESETS), default="demo", help="which comparison")
    parser.add_argument(
        "--gta5", type=Path, metavar="ROOT", required=True, help="the source, in the GTA5 tree"
    )
    parser.add_argument(
        "--cityscapes",
        type=Path,
        metavar="ROOT",
        required=True,
        help="the target, in the Cityscapes tree",
    )
    parser.add_argument(
        "--seeds",
        type=non_negative_int,
        nargs="+",
        default=[0],
        metavar="SEED",
        help="every row is trained once with each",
    )
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="only these rows, by name")
    parser.add_argument(
        "--steps",
        type=positive_int,
        help=(
            f"steps of a row; default: {DEFAULT_STEPS['small']} (small), {DEFAULT_STEPS['demo']}"
            f" after a start of as many (demo), {DEFAULT_STEPS['beyond']} (beyond),"
            f" {DEFAULT_STEPS['beyond-gpu']} (beyond-gpu). 'paper' has the recipe's own"
        ),
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        default=["19"],
        metavar="SUBSET|NAME",
        help="classes that the means are taken over, as in eval.py",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("checkpoints/reproduce"),
        metavar="FOLDER",
        help="receives FOLDER/seedN/ROW, the tables and report.html",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands and do nothing")
    parser.add_argument(
        "training",
        nargs="*",
        metavar="-- ARGUMENT",
        help="further arguments of every training command, after --",
    )
    args = parser.parse_args(argv)
    names = [row.name for row in PRESETS[args.preset].rows]
    unknown = [name for name in args.rows or () if name not in names]
    if unknown:
        parser.error(
            f"the preset {args.preset!r} has no row {unknown[0]!r}; its rows are:"
            f" {', '.join(names)}"
        )
    return args


def folder_name(row: str) -> str:
    """A row's name as a folder: "source-only + LAB" -> "source-only-lab"."""
    return row.lower().replace(" + ", "-").replace(" ", "-")


def row_commands(
    preset: Preset,
    row: Row,
    output: Path,
    values: dict[str, object],
    classes: list[str],
    more: list[str],
) -> list[list[str]]:
    """The training command of a row, and the evaluation command where it is scored, as words.
    ``output``: the folder of the seed.
    """
    fill = {name: shlex.quote(str(value)) for name, value in {**values, "output": output}.items()}
    words = shlex.split(f"{row.command} {preset.common}".format(**fill))
    run = output / folder_name(row.name)
    train = [
        *words,
        "--seed",
        str(values["seed"]),
        "--output",
        str(output),
        "--name",
        run.name,
        *more,
    ]
    if not row.scored:
        return [train]
    evaluate = [
        "eval.py",
        str(run / "last.pt"),
        "--cityscapes",
        str(values["cityscapes"]),
        *shlex.split(preset.evaluation),
    ]
    return [train, [*evaluate, "--classes", *classes, "--json", str(run.with_suffix(".json"))]]


def run_command(command: list[str], show: bool = True) -> None:
    """Raises ChildProcessError where the command fails."""
    if show:
        print(f"\n$ python {shlex.join(command)}", flush=True)
    code = subprocess.run([sys.executable, *command], check=False).returncode
    if code:
        raise ChildProcessError(
            f"{command[0]} ended with {code}; see above. Mend its cause and run this again: what is"
            " finished is kept."
        )


def run_row(commands: list[list[str]], run: Path) -> None:
    """Trains one row, on from where it was, and scores it; what is finished is left alone. Raises
    ChildProcessError.

    A row whose scores and record are there is finished, also where its checkpoint no longer is.
    """
    train, *evaluation = commands
    last = run / "last.pt"
    if evaluation and run.with_suffix(".json").exists() and (run / "config.json").exists():
        return
    if not (last.exists() and read_checkpoint(last).get("finished")):
        run_command([*train, "--resume"] if last.exists() else train)
        if not read_checkpoint(last).get("finished"):
            raise ChildProcessError(f"{run} was stopped before its end. Run this again to go on.")
    for command in evaluation:
        if not run.with_suffix(".json").exists():
            run_command(command)


def write_plan(args, preset: Preset) -> None:
    """Notes in comparison.json what scripts.summarise cannot see in the run folders."""
    evaluation = shlex.split(preset.evaluation)
    list_file = evaluation[evaluation.index("--list") + 1] if "--list" in evaluation else None
    rows = {folder_name(row.name): row.name for row in preset.rows if row.scored}
    plan = {
        "preset": args.preset,
        "published": preset.published,
        "rows": rows,
        "one_seed": [row.name for row in preset.rows if row.one_seed],
    }
    write_json(
        output_folder(args.output) / "comparison.json",
        plan | {"cityscapes": str(args.cityscapes), "gta5": str(args.gta5), "list": list_file},
    )


def main(args) -> None:
    preset = PRESETS[args.preset]
    steps = args.steps or DEFAULT_STEPS[args.preset]
    if not args.dry_run:
        write_plan(args, preset)
    for seed in args.seeds:
        values = {
            "gta5": args.gta5,
            "cityscapes": args.cityscapes,
            "seed": seed,
            "steps": steps,
            "twice": 2 * steps,
        }
        output = args.output / f"seed{seed}"
        for row in preset.rows:
            if (args.rows and row.name not in args.rows) or (
                row.one_seed and seed != args.seeds[0]
            ):
                continue
            commands = row_commands(preset, row, output, values, args.classes, args.training)
            if args.dry_run:
                print(*(f"python {shlex.join(command)}" for command in commands), sep="\n")
            else:
                run_row(commands, output / folder_name(row.name))
    if any(args.output.glob("seed*/*.json")) and not args.dry_run:
        run_command(["-m", "scripts.summarise", str(args.output)], show=False)


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
