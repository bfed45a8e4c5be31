"""Converts a BiSeNet of the reference implementation, or a backbone, for this project.

A BiSeNet of the reference implementation becomes a checkpoint that all scripts read (eval.py,
predict, export, --init). A ResNet or MobileNetV2 with torchvision's names, also inside a
checkpoint, becomes a plain state dict for --backbone-weights.
"""

if not __package__:  # started by its path: nothing of the project can be imported
    raise SystemExit("error: start it in the project's folder: python -m scripts.convert")

import io
import shlex
from pathlib import Path

import torch

from dataset.class_set_file import DEFAULT, load_class_set
from model.external_weights import (
    backbone_state,
    is_reference_implementation,
    reference_network,
    unwrap,
)
from model.preprocessing import INPUT_CONVENTIONS
from utils.files import output_file, require_absent, write_file
from utils.options.parser import new_parser, user_errors_without_traceback
from utils.training.checkpoint import FORMAT, reason_of, save_checkpoint

EPILOG = """examples:
  python -m scripts.convert published_step3.pth --input caffe_bgr --name published-ada \\
      --output checkpoints/published/last.pt
  python -m scripts.convert resnet_from_elsewhere.pth --output resnet18.pth
"""


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__, EPILOG)
    parser.add_argument(
        "weights",
        type=Path,
        metavar="FILE",
        help="file written by torch.save: a state dict, or a checkpoint with one",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="file to write: last.pt for a network, .pth for a backbone",
    )
    parser.add_argument(
        "--input",
        choices=tuple(INPUT_CONVENTIONS),
        help=(
            "input of a network, required: unit_rgb (RGB / 255), caffe_bgr (BGR minus a mean),"
            " imagenet"
        ),
    )
    parser.add_argument("--name", help="name of the network in tables; default: the name of FILE")
    parser.add_argument(
        "--class-set",
        metavar="NAME|FILE",
        help=f"classes of a network, in the order of its channels; default: {DEFAULT}",
    )
    return parser.parse_args(argv)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """State dict of another implementation. Raises FileNotFoundError, ValueError."""
    if not path.is_file():
        raise FileNotFoundError(f"No file {path}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises anything from EOFError to UnpicklingError
        raise ValueError(
            f"{path} cannot be read ({reason_of(error)}). Expected a torch.save file of tensors and"
            " plain values; pickled objects, which could run any code, are not loaded."
        ) from error
    if isinstance(content, dict) and content.get("format") == FORMAT:
        raise ValueError(f"{path} is a checkpoint of this project already: use it as it is.")
    try:
        return unwrap(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def convert_backbone(state: dict[str, torch.Tensor], args) -> None:
    """Writes a plain state dict; raises ValueError if ``state`` contains no known backbone."""
    try:
        name, backbone = backbone_state(state)
    except ValueError as error:
        raise ValueError(f"{args.weights}: {error}") from error
    flags = ("input", "name", "class_set")
    given = [f"--{flag.replace('_', '-')}" for flag in flags if getattr(args, flag) is not None]
    if given:
        raise ValueError(
            f"{args.weights} is a backbone, a {name}: {', '.join(given)}, of a whole network, would"
            " have no effect. Leave it out."
        )
    output_file(args.output, [args.weights])
    require_absent(args.output)
    buffer = io.BytesIO()
    torch.save(backbone, buffer)
    write_file(args.output, buffer.getvalue())
    print(
        f"{args.output}: a {name}. Train with it: python train.py --backbone {name}"
        f" --backbone-weights {shlex.quote(str(args.output))} ..."
    )


def convert_network(state: dict[str, torch.Tensor], args) -> None:
    """Writes a checkpoint; raises ValueError without --input, or for other classes."""
    if args.input is None:
        raise ValueError(
            f"{args.weights} is a BiSeNet of the reference implementation, and does not tell its"
            " input. Add --input unit_rgb for step 2 of that code, --input caffe_bgr for steps 3"
            " and 4."
        )
    model = reference_network(state)
    class_set = load_class_set(args.class_set or DEFAULT)
    if model.architecture["num_classes"] != len(class_set):
        raise ValueError(
            f"{args.weights} has {model.architecture['num_classes']} classes; {len(class_set)},"
            f" those of {class_set.name}, are expected. Give the --class-set that it learned."
        )
    output_file(args.output, [args.weights])
    require_absent(args.output)
    metadata = {
        "name": args.name or args.weights.stem,
        "architecture": model.architecture,
        "class_set": class_set.as_dict(),
        "input": INPUT_CONVENTIONS[args.input].as_dict(),
        "settings": {"converted_from": args.weights.name},
        # The file does not tell its training images; step 0: none of its training happened here.
        "seen_images": [],
        "unknown_weights": [args.weights.name],
        "step": 0,
        "best": None,
    }
    save_checkpoint(args.output, {"model": model}, **metadata)
    print(
        f"{args.output}: BiSeNet with {model.architecture['backbone']}, input {args.input}. Its"
        " training images are not known."
    )
    print(f"Score it: python eval.py {shlex.quote(str(args.output))} --cityscapes ROOT")


def main(args) -> None:
    state = read_weights(args.weights)
    if is_reference_implementation(state):
        convert_network(state, args)
    else:
        convert_backbone(state, args)


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
