"""Measures what this project claims to be fast at, each against the published manner of working, side by side in one run."""

from scripts import benchmark_train
from utils.arguments import clear_errors, new_parser

BENCHMARKS = {"train": benchmark_train}


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__)
    subparsers = parser.add_subparsers(dest="benchmark", required=True, metavar="|".join(BENCHMARKS))
    for name, module in BENCHMARKS.items():
        description = module.__doc__
        module.add_arguments(
            subparsers.add_parser(name, help=description.splitlines()[0], description=description, formatter_class=parser.formatter_class)
        )
    return parser.parse_args(argv)


if __name__ == "__main__":
    with clear_errors():
        arguments = parse_arguments()
        BENCHMARKS[arguments.benchmark].run(arguments)
