"""Benchmarks: what this project costs and how fast it is, each side of a comparison measured beside the other in the same run."""

from scripts import benchmark_evaluation, benchmark_model
from utils.arguments import clear_errors, new_parser

# The one exception to "entry scripts never import one another": these modules are this script's own subcommands.
SUBCOMMANDS = {"model": benchmark_model, "evaluation": benchmark_evaluation}

EPILOG = """examples:
  python -m scripts.benchmark model --backbone resnet18 --json model.json
  python -m scripts.benchmark evaluation --json evaluation.json
"""


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__, EPILOG)
    subparsers = parser.add_subparsers(dest="subcommand", required=True, metavar="WHAT")
    for name, module in SUBCOMMANDS.items():
        summary = module.__doc__.splitlines()[0]
        subparser = subparsers.add_parser(name, help=summary, description=module.__doc__, formatter_class=parser.formatter_class)
        module.add_arguments(subparser)
    return parser.parse_args(argv)


def main(args) -> None:
    SUBCOMMANDS[args.subcommand].run(args)


if __name__ == "__main__":
    with clear_errors():
        main(parse_arguments())
