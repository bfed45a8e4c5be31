"""Draws color transfer, one row per image: source | in LAB | in RGB | target.

These are the paper's Figs. 4 and 6. Fig. 6 compares the color spaces: the same transfer of means
and standard deviations is done in both.
"""

if not __package__:  # started by its path: nothing of the project can be imported
    raise SystemExit("error: start it in the project's folder: python -m scripts.preview_transfer")

from pathlib import Path

import cv2
import numpy as np

from dataset.image_io import read_image
from dataset.listing import ImageList
from dataset.source import labelled_images
from dataset.style.lab import channel_statistics, lab_statistics, lab_transfer, rgb_transfer
from dataset.target_flags import TargetFlags
from utils.files import output_file, write_png
from utils.options.checks import require_layouts, require_suffix
from utils.options.groups import NO_SPLITS, add_source_argument, add_unlabelled_arguments
from utils.options.parser import (
    from_arguments,
    new_parser,
    non_negative_int,
    positive_int,
    user_errors_without_traceback,
)
from utils.report.pictures import caption, stack

EPILOG = """example:
  python -m scripts.preview_transfer --gta5 $GTA5 --cityscapes $CITYSCAPES --output transfer.png
"""


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__, EPILOG)
    add_source_argument(parser, required=True)
    parser.add_argument(
        "--source-layout",
        metavar="NAME|FILE",
        help="layout of the source: gta5, ... or a TOML file; default: recognized",
    )
    add_unlabelled_arguments(parser)
    parser.add_argument(
        "--rows",
        type=positive_int,
        default=4,
        help="number of source images, each with a random target image",
    )
    parser.add_argument(
        "--width", type=positive_int, default=480, help="width of each picture in pixels"
    )
    parser.add_argument(
        "--seed", type=non_negative_int, default=0, help="seed of the choice of images"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE.png", default=Path("transfer.png"), help="PNG to write"
    )
    args = parser.parse_args(argv)
    require_suffix(parser, "--output", args.output, ".png")
    require_layouts(parser, args.target, args.target_layout, args.gta5, args.source_layout)
    if from_arguments(TargetFlags, vars(args)).scored_root is None:
        parser.refuse_unused(parser.given(argv), ["split"], NO_SPLITS)
    return args


def preview_row(source: np.ndarray, target: np.ndarray, width: int) -> np.ndarray:
    """Draws one row of the picture from two (H, W, 3) uint8 RGB images.

    Returns a captioned picture, (h, 4 * width, 3) uint8.
    """
    in_lab = lab_transfer(source, lab_statistics(source), lab_statistics(target))
    in_rgb = rgb_transfer(source, channel_statistics(source), channel_statistics(target))
    height = max(1, round(source.shape[0] * width / source.shape[1]))
    size = (width, height)  # OpenCV's order
    pictures = {
        "source": source,
        "source in the target's colors, LAB": in_lab,
        "the same in RGB": in_rgb,
        "target": target,
    }
    columns = []
    for name, picture in pictures.items():
        resized = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        columns.append(stack([caption(name, width, 13), resized]))
    return np.concatenate(columns, axis=1)


def inputs_of(args, targets: ImageList) -> list[Path]:
    """The roots and folders of the images, and targets with the name of the output."""
    words = [Path(word).expanduser() for word in args.target or ()]
    images = [frame.image for frame in targets]
    return [
        *(root for root in (args.gta5, args.cityscapes) if root is not None),
        *(path for path in words if path.is_dir()),
        *(image for image in images if image.name == args.output.name),
    ]


def main(args) -> None:
    sources = labelled_images(args.gta5, args.source_layout)
    targets = from_arguments(TargetFlags, vars(args)).images(args.split)
    output_file(args.output, inputs_of(args, targets))
    rng = np.random.default_rng(args.seed)
    chosen = rng.choice(len(sources), min(args.rows, len(sources)), replace=False)
    partners = np.resize(rng.permutation(len(targets)), len(chosen))
    rows = [
        preview_row(read_image(sources[s].image), read_image(targets[t].image), args.width)
        for s, t in zip(chosen, partners, strict=True)
    ]
    height = max(len(row) for row in rows)
    padded = [np.pad(row, ((0, height - len(row)), (0, 0), (0, 0))) for row in rows]
    write_png(args.output, np.concatenate(padded))
    print(f"Drew {len(rows)} transfers into {args.output}")


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
