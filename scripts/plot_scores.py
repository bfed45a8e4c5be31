"""Draws a scalar over the training steps, a curve a run, from TensorBoard events."""

if not __package__:  # started by its path: nothing of the project can be imported
    raise SystemExit("error: start it in the project's folder: python -m scripts.plot_scores")

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from utils.files import output_file, told_apart, write_file
from utils.options.checks import require_suffix
from utils.options.parser import new_parser, user_errors_without_traceback
from utils.report.charts import Line, line_chart
from utils.report.curves import Curve, read_curves, seed_range

EPILOG = """example:
  python -m scripts.plot_scores checkpoints/carla/seed0/* --percent --output scores.svg
"""


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    parser = new_parser(__doc__, EPILOG)
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="run folders; other files, and runs without the scalar, are skipped",
    )
    parser.add_argument("--scalar", default="val/miou", help="name of the scalar in TensorBoard")
    parser.add_argument(
        "--percent", action="store_true", help="the scalar is a fraction of 1: draw it in percent"
    )
    parser.add_argument("--title", default="", help="heading of the chart; default: the scalar")
    parser.add_argument(
        "--output", type=Path, metavar="FILE.svg", default=Path("scores.svg"), help="SVG to write"
    )
    args = parser.parse_args(argv)
    require_suffix(parser, "--output", args.output, ".svg")
    return args


def read_scalar(runs: Sequence[Path], scalar: str) -> dict[Path, Curve]:
    """A scalar of the runs that have it; the others are named on the screen.

    Raises ValueError where no run has it.
    """
    curves = {run: read_curves(run) for run in runs}
    found = {run: known[scalar] for run, known in curves.items() if scalar in known}
    if not found:
        names = sorted({name for known in curves.values() for name in known})
        if not names:
            raise ValueError(
                f"No TensorBoard events in {', '.join(map(str, runs))}. Expected run folders such"
                " as checkpoints/NAME; to draw all runs in a folder: checkpoints/*"
            )
        remedy = " Scores are there of runs with --validate-every." if "val/" in scalar else ""
        raise ValueError(
            f"No run has the scalar {scalar!r}.{remedy} Give one that they have by --scalar:"
            f" {', '.join(names)}."
        )
    if left_out := [str(run) for run in runs if run not in found]:
        print(f"NOTE: left out, because they have no {scalar}: {', '.join(left_out)}")
    return found


def chart_line(name: str, curve: Curve, factor: float) -> Line:
    """The finite values of a curve, times ``factor``. Raises ValueError where there are none."""
    finite = seed_range([curve])  # of one run: no band; long runs are averaged over intervals
    if finite is None:
        raise ValueError(f"{name}: all {len(curve.values)} values are infinite or not a number.")
    values = (factor * finite.mean).tolist()
    return Line(name, finite.steps.tolist(), values, values, values)


def main(args: Namespace) -> None:
    output_file(args.output)
    runs = [run for run in args.runs if run.is_dir()]
    if not runs:
        raise ValueError(
            f"None of {[str(run) for run in args.runs]} is a run folder. Expected folders such as"
            " checkpoints/NAME."
        )
    factor, unit = (100, ", %") if args.percent else (1, "")
    curves = read_scalar(runs, args.scalar)
    names = told_apart([run.name for run in curves], list(curves))
    lines = [
        chart_line(name, curve, factor) for name, curve in zip(names, curves.values(), strict=True)
    ]
    chart = line_chart(lines, args.title or args.scalar, "step", args.scalar + unit)
    write_file(args.output, chart.encode())
    print(f"Drew {len(lines)} curve{'s' if len(lines) > 1 else ''} into {args.output}")


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
