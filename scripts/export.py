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
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from dataset.class_set import ClassSet
from dataset.class_set_file import recorded_class_set
from dataset.demo.scene import CAMERA, street
from dataset.image_io import image_size, read_image
from dataset.labels import IGNORE_INDEX
from dataset.listing import ImageList, largest_image
from dataset.target import scored_images, target_images
from model.inference.export import (
    INT8_SUFFIX,
    DeployedNetwork,
    ExportedNetwork,
    OnnxNetwork,
    ProgramNetwork,
    export_onnx,
    export_program,
    require_onnx,
    update_onnx_metadata,
)
from model.inference.quantize import (
    QuantizationTrial,
    calibrate,
    choose_float_layers,
    convolution_layers,
    quantize,
)
from model.inference.tiling import with_border
from model.inference.tta import MIN_SIZE
from model.loading import load_network
from utils.benchmark.memory import check_memory
from utils.evaluation.metrics import confusion_matrix, scores
from utils.files import output_file, write_file
from utils.options.parser import (
    new_parser,
    non_negative_float,
    positive_int,
    user_errors_without_traceback,
)
from utils.training.checkpoint import inherited, read_checkpoint

CPU = torch.device("cpu")
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
LOGITS_TOLERANCE = 1e-3
"""Largest difference of two logits, relative to the standard deviation of all logits."""
PIXELS_TOLERANCE = 1e-4
"""Largest fraction of pixels with another class, where two classes differ by a rounding error."""
MOST_CHANGED = 0.03
"""Largest fraction of pixels with another class in int8, where no labels tell the loss."""
STREET_SIZES = ((128, 256), (150, 231))
"""Sizes (height, width) of the generated streets of the comparison."""
CHECKED_IMAGES = 32
"""Images of --check-on that are compared at most, evenly spaced."""
TRIAL_IMAGES = 8
"""Images on which every layer is tried in int8."""
RECORDED = ("name", "architecture", "step", "discriminator")
"""What an exported file records of its checkpoint, beside what the weights learned from."""


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__, EPILOG)
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


def disagreement(
    deployed: DeployedNetwork, exported: ExportedNetwork, images: Iterable[np.ndarray]
) -> float:
    """Largest difference between the two networks over all images, (H, W, 3) uint8 of any size.

    Each image is also tested in a batch of two. Measures the fraction of pixels with another class,
    or for logits their difference relative to their standard deviation.
    """
    worst = 0.0
    for image in images:
        for batch in (1, 2):
            stacked = np.stack([image, image[:, ::-1]][:batch])
            x = torch.from_numpy(with_border(stacked, exported.min_size))
            if not deployed.normalize_inside:
                x = exported.normalize(x).contiguous()
            with torch.inference_mode():
                expected = deployed(x).numpy()
            found = exported.run(x.numpy())
            if found.shape != expected.shape:
                return float("inf")
            if deployed.argmax_inside:
                worst = max(worst, float((found != expected).mean()))
            else:
                worst = max(worst, float(np.abs(found - expected).max() / expected.std()))
    return worst


def some_images(patterns: Sequence[str], count: int) -> ImageList:
    """At most ``count`` of the images that ``patterns`` match, evenly spaced.

    Raises what ``target_images`` raises, and ValueError for one too large for the memory.
    """
    found = target_images(patterns)
    chosen = found.subset(np.unique(np.linspace(0, len(found) - 1, count).round().astype(int)))
    check_memory(*largest_image(chosen), CPU)
    return chosen


def comparison_images(listing: ImageList | None) -> Iterator[np.ndarray]:
    """Yields the images (H, W, 3) uint8, or for None two generated streets of different sizes."""
    if listing is not None:
        yield from (read_image(frame.image) for frame in listing)
        return
    for seed, size in enumerate(STREET_SIZES):
        yield street(np.random.default_rng(seed), CAMERA, size)[0]


def export(
    deployed: DeployedNetwork, path: Path, file_format: str, metadata: dict[str, Any]
) -> ExportedNetwork:
    """Writes ``deployed`` to ``path`` and reads the file back."""
    if file_format == "onnx":
        export_onnx(deployed, path, metadata)
        return OnnxNetwork(path, CPU)
    export_program(deployed, path, metadata)
    return ProgramNetwork(path, CPU)


def verified_export(
    args, path: Path, checkpoint: dict[str, Any], class_set: ClassSet, checked: ImageList | None
) -> str:
    """Exports the checkpoint to ``path`` and compares the two; returns the result in words.

    ``checked``: images to compare them on; None: generated ones. Raises ValueError if they differ
    by more than rounding.
    """
    model, normalization = load_network(checkpoint, len(class_set))
    deployed = DeployedNetwork(
        model, normalization, not args.without_normalization, not args.without_argmax
    ).eval()
    metadata = {key: checkpoint[key] for key in RECORDED if key in checkpoint}
    metadata |= inherited([], checkpoint)
    metadata |= {
        "num_classes": len(class_set),
        "classes": class_set.names,
        "class_set": class_set.as_dict(),
        "input": normalization.as_dict(),
    }
    tolerance, unit = PIXELS_TOLERANCE, "of the pixels"
    if args.without_argmax:
        tolerance, unit = LOGITS_TOLERANCE, "of the standard deviation of the logits"
    exported, images = export(deployed, path, args.format, metadata), comparison_images(checked)
    difference = disagreement(deployed, exported, images)
    if not difference <= tolerance:  # also for NaN
        raise ValueError(
            f"The exported network does not agree with {args.checkpoint}: it differs by"
            f" {difference:.2g} {unit}, more than rounding ({tolerance}). Nothing was written."
            " Are the weights finite, and do the versions of torch and onnxruntime fit"
            " (requirements-export.txt)?"
        )
    return (
        f"agrees with {checkpoint['name']} on {len(checked or STREET_SIZES)} images (differs by"
        f" {difference:.2g} {unit})"
    )


# int8


def check_sizes(calibration: ImageList, scored: ImageList) -> None:
    """Raises ValueError if no image is calibrated on in a size that is scored."""
    calibrated = {image_size(frame.image) for frame in calibration}
    sizes = {image_size(frame.image) for frame in scored}
    if not calibrated & sizes:
        (height, width), (other_height, other_width) = min(calibrated), min(sizes)
        raise ValueError(
            f"The images of --calibrate-on have other sizes (such as {height}x{width}) than those"
            f" of --score-on (such as {other_height}x{other_width}). Calibrate on images as the"
            " network will see them."
        )


class Comparison(NamedTuple):
    """The int8 network beside the float32 one. ``miou``: of both, in percent, None without labels.

    ``changed``: fraction of the pixels that get another class.
    """

    changed: float
    miou: tuple[float, float] | None
    images: int


def compare(float32: OnnxNetwork, int8: OnnxNetwork, images: ImageList) -> Comparison:
    """Segments all images with both networks; scores them if they have labels."""
    num_classes, changed, pixels = int8.metadata["num_classes"], 0, 0
    matrices = torch.zeros(2, num_classes, num_classes, dtype=torch.int64)
    for frame in tqdm(images, desc="float32 and int8", unit="image", disable=None):
        image = np.asarray(read_image(frame.image))[None]
        found = [network(image) for network in (float32, int8)]
        changed += int((found[0] != found[1]).sum())
        pixels += found[0].size
        if frame.label is not None:
            label = images.label_format.read_train_ids(frame.label)[None]
            for matrix, prediction in zip(matrices, found, strict=True):
                matrix += confusion_matrix(label, prediction, num_classes, IGNORE_INDEX)
    miou = None
    if images.has_labels:
        miou = tuple(100 * scores(matrix).miou for matrix in matrices)
    return Comparison(changed / pixels, miou, len(images))


def require_little_loss(comparison: Comparison, most_lost: float) -> str:
    """The loss of the int8 network in words; raises ValueError if it is too large."""
    changed = f"{100 * comparison.changed:.2f} % of the pixels get another class"
    remedy = (
        " Nothing was written. Calibrate on more images, and on images as the network will see"
        " them; or use the float32 file."
    )
    if comparison.miou is None:
        if comparison.changed > MOST_CHANGED:
            raise ValueError(
                f"In int8 {changed} on {comparison.images} images, more than"
                f" {100 * MOST_CHANGED:g} %.{remedy} With --score-on the loss of mIoU decides."
            )
        return f"{changed} on {comparison.images} images, without labels"
    before, after = comparison.miou
    if not before - after <= most_lost:  # also for NaN
        raise ValueError(
            f"The int8 network loses {before - after:.2f} points of mIoU ({before:.2f} ->"
            f" {after:.2f} %) on {comparison.images} images, more than --most-lost"
            f" {most_lost:g}.{remedy}"
        )
    return (
        f"mIoU {before:.2f} % in float32, {after:.2f} % in int8 ({after - before:+.2f}) on"
        f" {comparison.images} labelled images; {changed}"
    )


def quantize_export(
    float_file: Path, int8_file: Path, calibration: ImageList, scored: ImageList | None, args
) -> str:
    """Writes ``int8_file`` from ``float_file``; returns what was lost, in words.

    Raises ValueError if too much was lost.
    """
    images = tqdm(calibration, desc="calibration", unit="image", disable=None)
    inputs = (with_border(read_image(frame.image)[None], MIN_SIZE)[0] for frame in images)
    ranges = calibrate(float_file, inputs)
    few = calibration.subset(range(0, len(calibration), -(-len(calibration) // TRIAL_IMAGES)))
    trial_images = [np.asarray(read_image(frame.image)) for frame in few]
    trial = QuantizationTrial(float_file, ranges, trial_images, args.symmetric)
    kept = choose_float_layers(trial)
    quantize(float_file, int8_file, ranges, args.symmetric, kept)

    layers = convolution_layers(float_file)
    float_layers = [layers[node] for node in kept]
    calibrated_on = {
        "given": args.calibrate_on,
        "fingerprint": calibration.fingerprint(),
        "sizes": sorted({image_size(frame.image) for frame in calibration}),
    }
    recorded = {"float32_layers": float_layers, "calibrated_on": calibrated_on}
    # As statistics of BatchNorm do, the ranges come from these images.
    recorded |= inherited(calibration.identities, OnnxNetwork(float_file, CPU).metadata)
    update_onnx_metadata(int8_file, recorded)
    networks = [OnnxNetwork(path, CPU) for path in (float_file, int8_file)]
    loss = require_little_loss(compare(*networks, scored or calibration), args.most_lost)
    return (
        f"{len(layers) - len(kept)} of {len(layers)} convolutions are in int8"
        f" (float32: {', '.join(float_layers) or 'none'}, and the attention and the head).\n{loss}"
    )


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
        result = verified_export(args, path, checkpoint, class_set, checked)
        if args.int8:
            float_file, path = path, Path(folder) / f"unverified{INT8_SUFFIX}"
            loss = quantize_export(float_file, path, calibration, scored, args)
            result = f"float32 {result}.\n{loss}"
        write_file(args.output, path.read_bytes())
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB, {result}.")
    model = shlex.quote(str(args.output))
    print(f"Run it: python -m scripts.predict IMAGE --model {model} --output DIR")


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
