"""Exports a checkpoint as ONNX or as a torch.export program, for any batch size and image size.

By default the graph takes uint8 RGB images and returns trainIds. The exported network is compared
with the checkpoint on images, in ONNX Runtime or torch; the file is written only if they agree.
With --int8 the ONNX network is quantized, and written only if it loses little.
ONNX needs: pip install -r requirements-export.txt
"""

if not __package__:  # started by its path: nothing of the project can be imported
    raise SystemExit("error: start it in the project's folder: python -m scripts.export")

import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dataset.class_set_file import recorded_class_set
from dataset.evenly import evenly
from dataset.listing import ImageList, largest_image
from dataset.target import scored_images, target_images
from model.inference.exported_network import INT8_SUFFIX, require_onnx
from scripts.export.int8 import Int8Options, check_sizes, quantize_export
from scripts.export.verification import CPU, ExportForm, verified_export
from utils.benchmark.memory import check_memory
from utils.files import output_file, write_file
from utils.options.parser import (
    new_parser,
    non_negative_float,
    positive_int,
    user_errors_without_traceback,
)
from utils.training.checkpoint import read_checkpoint

EPILOG = """examples:
  python -m scripts.export checkpoints/ada/last.pt --output ada.onnx \\
      --check-on $CITYSCAPES/leftImg8bit/val/frankfurt/*000294*.png
  python -m scripts.predict street.png --model ada.onnx --output out
  python -m scripts.export checkpoints/ada/last.pt --format torch --output ada.pt2
  int8, calibrated on unlabelled images and scored on labelled ones:
    python -m scripts.export checkpoints/ada/last.pt --output ada.int8.onnx --int8 \\
        --calibrate-on $CITYSCAPES --score-on $CITYSCAPES
"""
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
"""File suffix of each format; other scripts recognize the format by it."""
CHECKED_IMAGES = 32
"""Images of --check-on that are compared at most, evenly spaced."""


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__, EPILOG)
    parser.prog = "python -m scripts.export"
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="last.pt of a run")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="file to write: .onnx, .int8.onnx or .pt2; default: beside the checkpoint",
    )
    parser.add_argument(
        "--format",
        choices=tuple(SUFFIXES),
        default="onnx",
        help="onnx, for other runtimes; torch: a torch.export program",
    )
    parser.add_argument(
        "--without-normalization",
        action="store_true",
        help="input: normalized float32 (N, 3, H, W) instead of uint8 RGB (N, H, W, 3)",
    )
    parser.add_argument(
        "--without-argmax",
        action="store_true",
        help="output: float32 logits (N, classes, H, W) instead of uint8 trainIds (N, H, W)",
    )
    parser.add_argument(
        "--check-on",
        nargs="+",
        metavar="ROOT|PATTERN",
        help=f"compare on {CHECKED_IMAGES} of these images at most; default: two generated streets",
    )
    add_int8_arguments(parser)
    args = parser.parse_args(argv)
    suffix = INT8_SUFFIX if args.int8 else SUFFIXES[args.format]
    if args.output is None:
        args.output = args.checkpoint.with_suffix(suffix)
    check_arguments(parser, args, suffix, parser.given(argv))
    return args


def add_int8_arguments(parser) -> None:
    group = parser.add_argument_group("int8")
    group.add_argument(
        "--int8",
        action="store_true",
        help="ONNX with int8 weights and 8-bit activations, for fast CPUs and accelerators",
    )
    group.add_argument(
        "--calibrate-on",
        nargs="+",
        metavar="ROOT|PATTERN",
        help="images to measure activations on: Cityscapes (train), folders, patterns in quotes",
    )
    group.add_argument(
        "--calibration-images",
        type=positive_int,
        default=200,
        metavar="N",
        help="number of images of --calibrate-on to use, evenly spaced",
    )
    group.add_argument(
        "--score-on",
        type=Path,
        metavar="ROOT",
        help="labelled data: score the float32 and the int8 network (Cityscapes: val)",
    )
    group.add_argument(
        "--score-layout",
        metavar="NAME|FILE",
        help="layout of --score-on: acdc, ... or a TOML file; default: recognized",
    )
    group.add_argument(
        "--most-lost",
        type=non_negative_float,
        default=1.0,
        metavar="POINTS",
        help="with --score-on: write nothing if the int8 network loses more mIoU",
    )
    group.add_argument(
        "--symmetric",
        action="store_true",
        help="int8 activations with zero point 0, as TensorRT wants them; slower on x86",
    )


def check_arguments(parser, args, suffix: str, given: set[str]) -> None:
    """Ends with a usage error if options do not fit together."""
    if args.checkpoint.suffix in SUFFIXES.values():
        parser.error(
            f"{args.checkpoint} is an exported file. Give the checkpoint that it was made of"
            " (last.pt): float32 and int8 files are both made from it"
        )
    others = {"calibrate_on", "calibration_images", "symmetric"} & given
    others |= {"score_on", "score_layout", "most_lost"} & given
    if not args.int8 and others:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(others))
        parser.error(f"{flags}: without effect without --int8. Add --int8, or leave it out")
    if args.int8 and not args.calibrate_on:
        parser.error(
            "--int8 needs images to measure activations on, as the network will see them:"
            " --calibrate-on IMAGES"
        )
    if args.int8 and (args.format != "onnx" or args.without_normalization or args.without_argmax):
        parser.error(
            "--int8 writes ONNX with uint8 images as input and trainIds as output: leave out"
            " --format, --without-normalization and --without-argmax"
        )
    if args.most_lost != parser.get_default("most_lost") and not args.score_on:
        parser.error("--most-lost compares scores: add --score-on ROOT, or leave it out")
    if args.score_layout and not args.score_on:
        parser.error("--score-layout describes --score-on ROOT: give it, or leave the layout out")
    is_int8_name = args.output.name.endswith(INT8_SUFFIX)
    if is_int8_name and not args.int8:
        parser.error(f"--output {args.output.name}: such names are for int8; add --int8")
    if not args.output.name.endswith(suffix):
        parser.error(
            f"--output should end in {suffix}, so that other scripts recognize the format; found"
            f" {args.output.name}"
        )


def some_images(patterns: Sequence[str], count: int) -> ImageList:
    """At most ``count`` of the images that ``patterns`` match, evenly spaced.

    Raises what ``target_images`` raises, and ValueError for one too large for the memory.
    """
    found = target_images(patterns)
    chosen = found.subset(evenly(range(len(found)), count))
    check_memory(*largest_image(chosen), CPU)
    return chosen


def main(args) -> None:
    if args.format == "onnx":
        require_onnx("onnx", "onnxscript", "onnxruntime")
    output_file(args.output, [args.checkpoint])
    checkpoint = read_checkpoint(args.checkpoint)
    class_set = recorded_class_set(checkpoint)
    checked = some_images(args.check_on, CHECKED_IMAGES) if args.check_on else None
    if args.int8:
        calibration = some_images(args.calibrate_on, args.calibration_images)
        scored = None
        if args.score_on:
            scored = scored_images(args.score_on, class_set, args.score_layout)
            check_sizes(calibration, scored)
            check_memory(*largest_image(scored), CPU)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"unverified{SUFFIXES[args.format]}"
        form = ExportForm(args.format, not args.without_normalization, not args.without_argmax)
        result = verified_export(form, path, args.checkpoint, checkpoint, class_set, checked)
        if args.int8:
            float_file, path = path, Path(folder) / f"unverified{INT8_SUFFIX}"
            options = Int8Options(args.calibrate_on, args.symmetric, args.most_lost)
            loss = quantize_export(float_file, path, calibration, scored, options)
            result = f"float32 {result}.\n{loss}"
        write_file(args.output, path.read_bytes())
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB, {result}.")
    model = shlex.quote(str(args.output))
    print(f"Run it: python -m scripts.predict IMAGE --model {model} --output DIR")


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
