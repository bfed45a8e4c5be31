"""Segments images, folders, videos and camera pictures; writes overlays, color maps or label maps.

Takes a checkpoint (.pt) or an exported network (.onnx, .pt2), or compares several networks side by
side on the same images.
"""

if not __package__:  # started by its path: nothing of the project can be imported
    raise SystemExit("error: start it in the project's folder: python -m scripts.predict")

import argparse
import re
import warnings
from pathlib import Path

from PIL import Image

from dataset.unlabelled import find_inputs
from model.inference.exported_network import EXPORTED_NETWORKS
from model.inference.tiling import MARGIN, STRIDE
from scripts.predict.comparison import compare
from scripts.predict.drawing import KINDS, Results
from scripts.predict.images import none_read, predict_images
from scripts.predict.network import (
    NamedNetwork,
    load_named_network,
    require_label_ids,
    require_one_class_set,
)
from scripts.predict.videos import predict_camera, predict_video, say_left_out
from utils.files import output_folder, output_names, told_apart
from utils.options.groups import add_device_arguments
from utils.options.parser import (
    new_parser,
    non_negative_int,
    positive_float,
    positive_int,
    user_errors_without_traceback,
)
from utils.training.precision import choose_device, choose_precision
from utils.video import VIDEO_SUFFIXES, VideoReader

EPILOG = """examples:
  python -m scripts.predict street.jpg --model checkpoints/ada/last.pt --output out
  python -m scripts.predict drive.mp4 --model ada.onnx --output out
  python -m scripts.predict "frames/*.png" --model checkpoints/ada/last.pt --output out \\
      --save overlay color trainIds
  python -m scripts.predict --camera 0 --seconds 60 --model checkpoints/ada/last.pt --output out
  python -m scripts.predict aerial.png --tile 1024 --model checkpoints/ada/last.pt --output out \\
      --save trainIds
  figure that compares methods:
    python -m scripts.predict frames --labels gtFine --output out \\
        --compare checkpoints/source/last.pt checkpoints/ada/last.pt
"""
RESULT = re.compile(rf".+_({'|'.join((*KINDS, 'colour'))})\.(png|mp4)|comparison\.png")
"""Names of results, which are no inputs; "colour" was the name of "color" before."""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, EPILOG)
    parser.prog = "python -m scripts.predict"
    add_input_arguments(parser)
    add_network_arguments(parser)
    add_output_arguments(parser)
    add_device_arguments(parser)
    args = parser.parse_args(argv)
    check_arguments(parser, args)
    refuse_unused(parser, args, parser.given(argv))
    return args


def add_input_arguments(parser) -> None:
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="image, video, folder, or pattern such as 'frames/*.png' (in quotes)",
    )
    parser.add_argument(
        "--camera",
        type=non_negative_int,
        metavar="N",
        help="record camera N until Ctrl-C, instead of reading files: camera_N_overlay.mp4",
    )
    parser.add_argument(
        "--seconds", type=positive_float, help="with --camera: stop after this duration"
    )


def add_network_arguments(parser) -> None:
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument(
        "--model",
        type=Path,
        metavar="FILE",
        help="last.pt of a run, or an exported .onnx or .pt2 file",
    )
    network.add_argument(
        "--compare",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="draw the predictions of several networks side by side: comparison.png",
    )
    parser.add_argument(
        "--tile",
        type=positive_int,
        metavar="PIXELS",
        help=(
            f"segment larger images in overlapping tiles, to save memory; a multiple of {STRIDE}"
            f" above {2 * MARGIN}"
        ),
    )


def add_output_arguments(parser) -> None:
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the results: INPUT_overlay.png, INPUT_overlay.mp4, ...",
    )
    parser.add_argument(
        "--save",
        nargs="+",
        choices=KINDS,
        default=["overlay"],
        help="class colors over the image or alone, or label maps; for videos: overlay, color",
    )
    parser.add_argument(
        "--no-legend",
        action="store_true",
        help="pictures of the size of the image, without class names below",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="DIR",
        help="with --compare: folder with ground truth, searched by the name of the image",
    )


def check_arguments(parser, args) -> None:
    """Ends with a usage error if options do not fit together."""
    if bool(args.inputs) == (args.camera is not None):
        parser.error("give an INPUT or --camera N" + (", not both" if args.inputs else ""))
    if args.camera is not None and args.compare:
        parser.error("--compare draws images; record with one network: --camera N --model FILE")
    if args.seconds and args.camera is None:
        parser.error("--seconds limits --camera N")
    if args.tile and (args.tile % STRIDE or args.tile <= 2 * MARGIN):
        parser.error(
            f"--tile {args.tile}: expected a multiple of {STRIDE} above {2 * MARGIN}, such as 1024"
        )
    if args.labels and not args.compare:
        parser.error(
            "--labels is drawn by --compare only. Compare one network with its ground truth:"
            " --compare FILE --labels DIR"
        )


def refuse_unused(parser, args, given: set[str]) -> None:
    """Ends with a usage error for options that would do nothing."""
    if args.compare:
        parser.refuse_unused(given, ["save"], "with --compare, which draws one picture")
    elif not {"overlay", "color"} & set(args.save):
        parser.refuse_unused(given, ["no_legend"], "with label maps alone, which have no legend")
    if all(path.suffix in EXPORTED_NETWORKS for path in args.compare or [args.model]):
        condition = "with exported networks, which have a precision already"
        parser.refuse_unused(given, ["precision"], condition)


def main(args: argparse.Namespace) -> None:
    device = choose_device(args.device)
    precision = choose_precision(args.precision, device)
    output_folder(args.output)
    # Every image is compared with the available memory; Pillow need not warn as well.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    images, videos = [], []
    if args.inputs:
        images, videos = find_inputs(args.inputs, VIDEO_SUFFIXES, args.output, RESULT)
    if args.compare and not images:
        raise ValueError("--compare draws images; found videos only. Segment a video with --model.")
    if (videos or args.camera is not None) and not args.compare:
        source = str(videos[0]) if videos else f"Camera {args.camera}"
        say_left_out(source, args.save)  # raises before any work is done
    if args.labels is not None and not args.labels.is_dir():
        raise FileNotFoundError(
            f"No folder {args.labels}. --labels expects the folder that holds the ground truth,"
            " such as gtFine."
        )

    paths = args.compare or [args.model]
    networks = [load_named_network(path, device, precision) for path in paths]
    if args.tile:
        networks = [network.with_tiles(args.tile) for network in networks]

    if args.compare:
        require_one_class_set(networks, paths)
        names = told_apart([network.name for network in networks], paths)
        named = [n._replace(name=name) for n, name in zip(networks, names, strict=True)]
        compare(named, images, args.labels, args.output / "comparison.png", not args.no_legend)
        return
    (network,) = networks
    require_label_ids(network, args.save)
    results = Results(args.output, args.save, not args.no_legend)
    if args.camera is not None:
        predict_camera(network, args.camera, results, args.seconds)
    else:
        predict_files(network, images, videos, results)


def predict_files(
    network: NamedNetwork, images: list[Path], videos: list[Path], results: Results
) -> None:
    """Segments images and videos; unreadable ones are skipped with a warning.

    Raises ValueError if none can be read; a single file raises its own error.
    """
    count = len(images) + len(videos)
    done = predict_images(network, images, results, count == 1)
    for path, stem in output_names(videos).items():
        try:
            reader = VideoReader(path)
            network.require_memory(path, reader.size)
        except (OSError, ValueError) as error:
            if count == 1:
                raise
            print(f"WARNING: skipped: {error}")
            continue
        predict_video(network, path, reader, stem, results)
        done += 1
    if not done:
        raise none_read(count, "videos" if not images else "inputs" if videos else "images")


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
