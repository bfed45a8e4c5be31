"""Exports a checkpoint as ONNX or as a torch.export program, for any batch size and image size.

By default the graph takes uint8 RGB images and returns trainIds. The exported network is compared
with the checkpoint on images, in ONNX Runtime or torch; the file is written only if they agree.
ONNX needs: pip install -r requirements-export.txt
"""

if not __package__:  # started by its path: nothing of the project can be imported
    raise SystemExit("error: start it in the project's folder: python -m scripts.export")

import shlex
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset.class_set import recorded_class_set
from dataset.demo.scene import CAMERA, street
from dataset.image_io import read_image
from model.inference.export import (
    DeployedNetwork,
    ExportedNetwork,
    OnnxNetwork,
    ProgramNetwork,
    export_onnx,
    export_program,
    require_onnx,
)
from model.loading import load_network
from utils.files import output_folder, write_file
from utils.options.parser import new_parser, user_errors_without_traceback
from utils.training.checkpoint import read_checkpoint

EPILOG = """examples:
  python -m scripts.export checkpoints/ada/last.pt --output ada.onnx \\
      --check-on $CITYSCAPES/leftImg8bit/val/frankfurt/*000294*.png
  python -m scripts.predict street.png --model ada.onnx --output out
  python -m scripts.export checkpoints/ada/last.pt --format torch --output ada.pt2
"""
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
"""File suffix of each format; other scripts recognize the format by it."""
LOGITS_TOLERANCE = 1e-3
"""Largest difference of two logits, relative to the standard deviation of all logits."""
PIXELS_TOLERANCE = 1e-4
"""Largest fraction of pixels with another class, where two classes differ by a rounding error."""


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__, EPILOG)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="last.pt of a run")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="file to write: .onnx, or .pt2 with --format torch",
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
        type=Path,
        nargs="+",
        default=(),
        metavar="IMAGE",
        help="images for the comparison; default: two generated streets of different sizes",
    )
    args = parser.parse_args(argv)
    suffix = SUFFIXES[args.format]
    if args.output.suffix != suffix:
        parser.error(
            f"--output should end in {suffix} with --format {args.format}, so that other scripts"
            f" recognize the format; found {args.output.name}"
        )
    return args


def disagreement(
    deployed: DeployedNetwork, exported: ExportedNetwork, images: list[np.ndarray]
) -> float:
    """Largest difference between the two networks over all images, (H, W, 3) uint8.

    Each image is also tested in a batch of two. Measures the fraction of pixels with another class,
    or for logits their difference relative to their standard deviation.
    """
    worst = 0.0
    for image in images:
        for batch in (1, 2):
            x = torch.from_numpy(np.stack([image, image[:, ::-1]][:batch]))
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


def comparison_images(paths: list[Path]) -> list[np.ndarray]:
    """Images (H, W, 3) uint8 of ``paths``, or two generated streets of different sizes."""
    if paths:
        return [read_image(path) for path in paths]
    sizes = ((128, 256), (150, 231))
    return [street(np.random.default_rng(seed), CAMERA, size)[0] for seed, size in enumerate(sizes)]


def export(
    deployed: DeployedNetwork, path: Path, file_format: str, metadata: dict[str, Any]
) -> ExportedNetwork:
    """Writes ``deployed`` to ``path`` and reads the file back."""
    if file_format == "onnx":
        export_onnx(deployed, path, metadata)
        return OnnxNetwork(path, torch.device("cpu"))
    export_program(deployed, path, metadata)
    return ProgramNetwork(path, torch.device("cpu"))


def main(args) -> None:
    if args.format == "onnx":
        require_onnx("onnx", "onnxscript", "onnxruntime")
    output_folder(args.output.absolute().parent)
    checkpoint = read_checkpoint(args.checkpoint)
    class_set = recorded_class_set(checkpoint)
    model, normalization = load_network(checkpoint, len(class_set))
    images = comparison_images(args.check_on)
    deployed = DeployedNetwork(
        model, normalization, not args.without_normalization, not args.without_argmax
    ).eval()
    metadata = {
        "name": checkpoint["name"],
        "num_classes": len(class_set),
        "classes": class_set.names,
        "class_set": class_set.as_dict(),
        "input": normalization.as_dict(),
        "architecture": checkpoint["architecture"],
        "step": checkpoint["step"],
    }
    tolerance, unit = PIXELS_TOLERANCE, "of the pixels"
    if args.without_argmax:
        tolerance, unit = LOGITS_TOLERANCE, "of the standard deviation of the logits"

    with tempfile.TemporaryDirectory() as folder:
        unverified = Path(folder) / f"unverified{args.output.suffix}"
        exported = export(deployed, unverified, args.format, metadata)
        difference = disagreement(deployed, exported, images)
        if not difference <= tolerance:  # also for NaN
            raise ValueError(
                f"The exported network does not agree with {args.checkpoint}: it differs by"
                f" {difference:.2g} {unit}, more than rounding ({tolerance}). Nothing was written."
                " Are the weights finite, and do the versions of torch and onnxruntime fit"
                " (requirements-export.txt)?"
            )
        write_file(args.output, unverified.read_bytes())
    size_mb = args.output.stat().st_size / 1e6
    print(
        f"{args.output}: {size_mb:.1f} MB, agrees with {checkpoint['name']} on {len(images)} images"
        f" (differs by {difference:.2g} {unit})."
    )
    model = shlex.quote(str(args.output))
    print(f"Run it: python -m scripts.predict IMAGE --model {model} --output DIR")


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
