"""Draws how a score went on during training: one curve a run, out of the TensorBoard events of its
folder.
"""

from pathlib import Path

from utils.files import output_folder
from utils.options.parser import new_parser, user_errors_without_traceback
from utils.report.curves import Curve, read_curves

EPILOG = """example:
  python -m scripts.plot_scores checkpoints/carla/* --output scores.png
"""


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__, EPILOG)
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="run folders; what is no folder is passed over",
    )
    parser.add_argument("--scalar", default="val/miou", help="name of the scalar in TensorBoard")
    parser.add_argument(
        "--percent", action="store_true", help="the scalar is a fraction of 1: draw it in percent"
    )
    parser.add_argument("--title", default="", help="above the picture")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        default=Path("scores.png"),
        help="PNG or SVG to write",
    )
    return parser.parse_args(argv)


def read_curve(run: Path, scalar: str) -> Curve:
    """One scalar of a run. Raises ValueError when the run has none of that name."""
    curves = read_curves(run)
    if scalar not in curves:
        raise ValueError(
            f"{run} has no scalar {scalar!r}; it has {sorted(curves)}. Was it trained with"
            " --validate-every?"
        )
    return curves[scalar]


def main(args) -> None:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ValueError(
            "Drawing needs matplotlib: pip install matplotlib (it is among requirements-dev.txt)."
        ) from error
    output_folder(args.output.absolute().parent)
    curves = {run.name: read_curve(run, args.scalar) for run in args.runs if run.is_dir()}
    if not curves:
        raise ValueError(
            f"None of {[str(run) for run in args.runs]} is a run folder. Expected folders such as"
            " checkpoints/NAME."
        )
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for (name, (steps, values)), style in zip(
        curves.items(), ("-", "--", "-.", ":") * len(curves), strict=False
    ):
        axes.plot(
            steps,
            [100 * value if args.percent else value for value in values],
            style,
            marker=".",
            label=name,
        )
    axes.set(xlabel="step", ylabel=args.scalar + (", %" if args.percent else ""), title=args.title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    figure.savefig(args.output, dpi=110)
    print(f"Drew {len(curves)} curves into {args.output}")


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
