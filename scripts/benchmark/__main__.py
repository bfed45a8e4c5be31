"""Measures this project against a baseline (scripts/baselines.py), and its methods."""

if not __package__:  # started by its path: nothing of the project can be imported
    raise SystemExit("error: start it in the project's folder: python -m scripts.benchmark")

from scripts.benchmark import data, deployment, evaluation, methods, model, train
from utils.files import output_file
from utils.options.parser import new_parser, user_errors_without_traceback

SUBCOMMANDS = {
    "data": data,
    "train": train,
    "methods": methods,
    "evaluation": evaluation,
    "model": model,
    "deployment": deployment,
}

EPILOG = """examples:
  python -m scripts.benchmark data --gta5 $GTA5 --cityscapes $CITYSCAPES --json data.json
  python -m scripts.benchmark train --json train.json
  python -m scripts.benchmark methods --json methods.json
  python -m scripts.benchmark evaluation --json evaluation.json
  python -m scripts.benchmark model --backbone resnet18 --json model.json
  python -m scripts.benchmark deployment --checkpoint last.pt --int8 last.int8.onnx
"""


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__, EPILOG)
    parser.prog = "python -m scripts.benchmark"
    subparsers = parser.add_subparsers(dest="subcommand", required=True, metavar="BENCHMARK")
    for name, module in SUBCOMMANDS.items():
        summary = module.__doc__.splitlines()[0]
        subparser = subparsers.add_parser(
            name, help=summary, description=module.__doc__, formatter_class=parser.formatter_class
        )
        module.add_arguments(subparser)
    return parser.parse_args(argv)


def main(args) -> None:
    if args.json:  # before the measuring
        checkpoint = getattr(args, "checkpoint", None)
        output_file(args.json, [checkpoint] if checkpoint else [])
    SUBCOMMANDS[args.subcommand].run(args)


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
