"""Measures this project against the published manner of doing the same work (scripts/baselines.py), side by side in one run."""

from scripts import benchmark_data, benchmark_train
from utils.arguments import clear_errors, new_parser

SUBCOMMANDS = {"data": benchmark_data, "train": benchmark_train}


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__)
    subparsers = parser.add_subparsers(dest="subcommand", required=True)
    for name, module in SUBCOMMANDS.items():
        summary = module.__doc__.split("\n", 1)[0]
        subparser = subparsers.add_parser(name, help=summary, description=module.__doc__, formatter_class=parser.formatter_class)
        module.add_arguments(subparser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    with clear_errors():
        args = parse_arguments()
        SUBCOMMANDS[args.subcommand].run(args)
