"""Takes over weights of others: a checkpoint of the published BiSeNet implementation, or a ResNet
backbone.

A published BiSeNet becomes a checkpoint that every script here reads (eval.py, predict, export,
--init). A ResNet-18 or -101 under torchvision's names, in whatever wrapping, becomes a plain state
dict for --backbone-weights.
"""

import io
from pathlib import Path

import torch

from dataset.labels import NUM_CLASSES
from model.external_weights import (
    backbone_state,
    is_reference_implementation,
    reference_network,
    unwrap,
)
from model.preprocessing import INPUT_CONVENTIONS
from utils.files import output_folder, write_file
from utils.options.parser import new_parser, user_errors_without_traceback
from utils.training.checkpoint import FORMAT, reason_of, save_checkpoint

EPILOG = """examples:
  python -m scripts.convert published_step3.pth --input step34 --output checkpoints/published/last.pt --name published-ada
  python -m scripts.convert resnet_from_elsewhere.pth --output resnet18.pth
"""


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__, EPILOG)
    parser.add_argument(
        "weights",
        type=Path,
        metavar="FILE",
        help="what torch.save wrote: a state dict, or a checkpoint that holds one",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="last.pt for a network, .pth for a backbone",
    )
    parser.add_argument(
        "--input",
        choices=tuple(INPUT_CONVENTIONS),
        help=(
            "needed for a network: what it was trained on. step2: RGB / 255; step34: BGR minus a"
            " mean, as the authors' steps 3 and 4; imagenet"
        ),
    )
    parser.add_argument("--name", help="of the network in tables; by default the file's")
    return parser.parse_args(argv)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of others. Raises FileNotFoundError, ValueError."""
    if not path.is_file():
        raise FileNotFoundError(f"No file {path}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # what torch raises for a damaged file is anything from EOFError to UnpicklingError
        raise ValueError(
            f"{path} cannot be read ({reason_of(error)}). Expected what torch.save wrote of tensors"
            " and plain values; pickled objects, which could run any code, are not loaded."
        ) from error
    if isinstance(content, dict) and content.get("format") == FORMAT:
        raise ValueError(f"{path} is a checkpoint of this project already: use it as it is.")
    try:
        return unwrap(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def main(args) -> None:
    state = read_weights(args.weights)
    if not is_reference_implementation(state):
        try:
            name, backbone = backbone_state(state)
        except ValueError as error:
            raise ValueError(f"{args.weights}: {error}") from error
        output_folder(args.output.absolute().parent)
        buffer = io.BytesIO()
        torch.save(backbone, buffer)
        write_file(args.output, buffer.getvalue())
        print(
            f"{args.output}: a {name}. Train with it: python train.py --backbone {name}"
            f" --backbone-weights {args.output} ..."
        )
        return
    if args.input is None:
        raise ValueError(
            f"{args.weights} is a published BiSeNet, and does not say what its input is. Add"
            " --input step2 for step 2 of the authors' code, --input step34 for steps 3 and 4."
        )
    model = reference_network(state)
    if model.architecture["num_classes"] != NUM_CLASSES:
        raise ValueError(
            f"{args.weights} has {model.architecture['num_classes']} classes; {NUM_CLASSES}, those"
            " of Cityscapes, are expected."
        )
    output_folder(args.output.absolute().parent)
    metadata = {
        "name": args.name or args.weights.stem,
        "architecture": model.architecture,
        "input": INPUT_CONVENTIONS[args.input].as_dict(),
    }
    # On which images others trained is not in their file; step 0 says that none of it happened
    # here.
    metadata |= {
        "settings": {"converted_from": args.weights.name},
        "seen_images": [],
        "step": 0,
        "best": None,
    }
    save_checkpoint(args.output, {"model": model}, **metadata)
    print(
        f"{args.output}: BiSeNet with {model.architecture['backbone']}, input {args.input}. Which"
        " images it was trained on is not known."
    )
    print(f"Score it: python eval.py {args.output} --cityscapes ROOT")


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
