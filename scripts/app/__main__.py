"""Serves a local page to try networks on images, short videos and the camera of the browser.

Takes checkpoints (.pt) and exported networks (.onnx, .pt2), and shows their predictions side by
side. The page is for this machine only (127.0.0.1), needs no network, and keeps nothing.
Needs: pip install -r requirements-app.txt
"""

if not __package__:  # started by its path: nothing of the project can be imported
    raise SystemExit("error: start it in the project's folder: python -m scripts.app")

import importlib.util
import warnings
from pathlib import Path

from PIL import Image

from model.inference.exported_network import EXPORTED_NETWORKS
from scripts.app.networks import load_networks
from utils.options.groups import add_device_arguments
from utils.options.parser import (
    new_parser,
    positive_float,
    positive_int,
    user_errors_without_traceback,
)
from utils.training.precision import choose_device, choose_precision

EPILOG = """examples:
  python -m scripts.app checkpoints/source/last.pt checkpoints/ada/last.pt
  python -m scripts.app ada.int8.onnx --port 8000
"""


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__, EPILOG)
    parser.prog = "python -m scripts.app"
    parser.add_argument(
        "networks",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="last.pt of a run, or an exported .onnx or .pt2 file",
    )
    parser.add_argument(
        "--port",
        type=positive_int,
        default=7860,
        help="port of the page; if it is in use, the next free one",
    )
    parser.add_argument(
        "--video-seconds",
        type=positive_float,
        default=20.0,
        metavar="SECONDS",
        help="longest video that the page takes",
    )
    add_device_arguments(parser)
    args = parser.parse_args(argv)
    if args.port > 65535:
        parser.error(f"--port {args.port}: ports end at 65535")
    if all(path.suffix in EXPORTED_NETWORKS for path in args.networks):
        condition = "with exported networks, which have a precision already"
        parser.refuse_unused(parser.given(argv), ["precision"], condition)
    return args


def main(args) -> None:
    if importlib.util.find_spec("gradio") is None:
        raise ValueError(
            "The page needs gradio, which is not installed: pip install -r requirements-app.txt"
        )
    from scripts.app.server import serve  # imports gradio

    # Images are compared with the available memory; Pillow need not warn as well.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    device = choose_device(args.device)
    precision = choose_precision(args.precision, device)
    networks = load_networks(args.networks, device, precision)
    serve(networks, args.port, args.video_seconds)


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
