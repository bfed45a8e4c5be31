"""Trains and scores every row of a comparison for several seeds, then writes tables and a report.

Started again, it continues where it was stopped. A row is a command of train.py or train_da.py and
one of eval.py; --dry-run prints them. Tables and report are made by scripts.summarise.
"""

if not __package__:  # started by its path: nothing of the project can be imported
    raise SystemExit("error: start it in the project's folder: python -m scripts.reproduce")

import argparse
import shlex
from pathlib import Path

from scripts.reproduce.earlier_runs import flags_of, read_record, require_same_training
from scripts.reproduce.preset import Row, added_flags, describe_presets, preset_argument
from scripts.reproduce.rows import (
    has_seeds,
    is_old_start,
    needed_rows,
    quoted_values,
    require_known_origins,
    row_commands,
    run_command,
    run_row,
)
from utils.files import output_folder, write_json
from utils.options.groups import add_source_argument
from utils.options.parser import (
    new_parser,
    non_negative_int,
    positive_int,
    user_errors_without_traceback,
)

EPILOG = """examples:
  python -m scripts.reproduce --preset paper --gta5 $GTA5 --cityscapes $CITYSCAPES --seeds 0 1 2 \\
      --output checkpoints/paper
  python -m scripts.reproduce --preset small --gta5 $CARLA --cityscapes $CITYSCAPES_SMALL \\
      --classes carla13 --output checkpoints/carla
  what follows -- goes to every training command:
  python -m scripts.reproduce --preset demo --gta5 demo_data/gta5 \\
      --cityscapes demo_data/cityscapes -- --device cpu --workers 1
"""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(f"{__doc__}\n{describe_presets()}", EPILOG)
    parser.prog = "python -m scripts.reproduce"
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
        help="target: root of a data set with labels, to be scored",
    )
    add_comparison_arguments(parser)
    args = parser.parse_args(argv)
    names = [row.name for row in args.preset.rows]
    if unknown := [name for name in args.rows or () if name not in names]:
        parser.error(
            f"the preset {args.preset.name!r} has no row {unknown[0]!r}; its rows are:"
            f" {', '.join(names)}"
        )
    if "--leave-out" in flags_of(args.training):
        parser.error(
            "--leave-out after -- would go to all rows, and not every row has the image. Give it to"
            " the row's own command, which is printed above its output, with --resume, and let"
            " it end; then run this again without it"
        )
    if added := added_flags(args.training):
        parser.error(
            f"{added[0]} after -- would be that of all rows and seeds. Give --seeds or --output"
            " before --; names and --resume are added where they belong"
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
        help="classes whose mean is reported, as in eval.py; default: all",
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


def write_comparison(args: argparse.Namespace) -> None:
    """Writes comparison.json: what scripts.summarise cannot read from the run folders.

    Notes on the screen where it was begun with other data.
    """
    preset = args.preset
    roots = {"gta5": args.gta5, "cityscapes": args.cityscapes}
    scoring = flags_of(shlex.split(preset.evaluation.format(**quoted_values(roots))))
    list_file, layout = (scoring.get(flag, [None])[0] for flag in ("--list", "--layout"))
    content = {
        "preset": preset.name,
        "published": preset.published,
        "rows": {row.folder: row.name for row in preset.rows if row.scored},
        "single_seed": [row.name for row in preset.rows if row.single_seed],
        **{name: str(root) for name, root in roots.items()},
        "list": list_file,
        "layout": layout,
    }
    path = output_folder(args.output) / "comparison.json"
    before = read_record(path) or {}
    moved = [
        f"{before[name]} -> {content[name]}"
        for name in roots
        if name in before and before[name] != content[name]
    ]
    if moved:
        print(
            f"NOTE: {args.output} was begun with data in other folders, before -> now:"
            f" {'; '.join(moved)}. Finished rows are kept: if the images are not the same, give"
            " another --output."
        )
    write_json(path, content)


def seeds_of_row(row: Row, args: argparse.Namespace) -> list[int]:
    """Those of --seeds that a row is trained with: all of them.

    A row with a single seed keeps the seed of an earlier start, or takes the first of --seeds.
    """
    if not row.single_seed:
        return args.seeds
    has = has_seeds(args.output, row.folder)
    return [seed for seed in args.seeds if f"seed{seed}" in has] if has else args.seeds[:1]


def note_other_seeds(args: argparse.Namespace) -> None:
    """Notes on the screen which rows with a single seed are left out: another seed has them."""
    rows = needed_rows(args.preset, args.rows)
    left_out = [
        f"{row.name} ({', '.join(has_seeds(args.output, row.folder))})"
        for row in args.preset.rows
        if row.name in rows and not seeds_of_row(row, args)
    ]
    if left_out:
        print(
            f"NOTE: trained with a single seed, which another start had: {', '.join(left_out)}."
            " Left out."
        )


def planned_commands(args: argparse.Namespace) -> dict[Path, dict[Row, list[list[str]]]]:
    """{folder of a seed: {row: its commands}}.

    Raises FileExistsError for rows that were trained by other commands, FileNotFoundError for rows
    that begin from nothing: before any training.
    """
    preset, plan = args.preset, {}
    steps = args.steps or preset.steps or 0
    rows = needed_rows(preset, args.rows)
    values = {"gta5": args.gta5, "cityscapes": args.cityscapes}
    values |= {"steps": steps, "twice_steps": 2 * steps}
    for seed in args.seeds:
        output = args.output / f"seed{seed}"
        plan[output] = {
            row: row_commands(
                preset, row, seed, values | {"output": output}, args.classes, args.training
            )
            for row in preset.rows
            if row.name in rows and seed in seeds_of_row(row, args)
        }
        for row, commands in plan[output].items():
            require_known_origins(preset, row, output)
            if not args.dry_run:
                require_same_training(commands, output / row.folder)
    return plan


def main(args: argparse.Namespace) -> None:
    plan = planned_commands(args)
    if args.dry_run:
        lines = [line for commands in plan.values() for row in commands.values() for line in row]
        print(*(f"python {shlex.join(line)}" for line in lines), sep="\n")
        return
    write_comparison(args)
    note_other_seeds(args)
    for output, commands in plan.items():
        for row in commands:
            if not is_old_start(row, commands, output):
                origins = [output / folder for folder in row.origins]
                run_row(commands[row], output / row.folder, args.one_table, origins)
    if any(args.output.glob("seed*/*.json")):
        run_command(["-m", "scripts.summarise", str(args.output)], show=False)


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
