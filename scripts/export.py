"""Exports a checkpoint, to ONNX or as a program of torch.export, for any batch and any size: by
default one graph from uint8 RGB images to a map of trainIds.

The file is compared with the checkpoint on images, in ONNX Runtime or torch, and appears only if
they agree. ONNX needs: pip install -r requirements-export.txt
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

from dataset.demo.scene import CAMERA, street
from dataset.image_io import read_image
from dataset.labels import CLASS_NAMES, NUM_CLASSES
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
  python -m scripts.export checkpoints/ada/last.pt --output ada.onnx --check-on $CITYSCAPES/leftImg8bit/val/frankfurt/*000294*.png
  python -m scripts.predict street.png --model ada.onnx --output out
  python -m scripts.export checkpoints/ada/last.pt --format torch --output ada.pt2
"""
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
"""{format: suffix, by which other scripts know it}."""
LOGITS_TOLERANCE = 1e-3
"""Largest difference of two logits, as a share of the spread (standard deviation) of all logits."""
PIXELS_TOLERANCE = 1e-4
"""Largest share of pixels with another class: those whose two best classes are a rounding error
apart.
"""


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__, EPILOG)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="last.pt of a run")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="the file to write: .onnx, or .pt2 with --format torch",
    )
    parser.add_argument(
        "--format",
        choices=tuple(SUFFIXES),
        default="onnx",
        help="onnx, for other runtimes; torch: a program of torch.export",
    )
    parser.add_argument(
        "--without-normalization",
        action="store_true",
        help="take float32 (N, 3, H, W) normalized by the caller, not uint8 RGB (N, H, W, 3)",
    )
    parser.add_argument(
        "--without-argmax",
        action="store_true",
        help="give float32 logits (N, 19, H, W), not uint8 trainIds (N, H, W)",
    )
    parser.add_argument(
        "--check-on",
        type=Path,
        nargs="+",
        default=(),
        metavar="IMAGE",
        help="images to compare on; by default two generated streets of unequal size",
    )
    args = parser.parse_args(argv)
    suffix = SUFFIXES[args.format]
    if args.output.suffix != suffix:
        parser.error(
            f"--output should end in {suffix} with --format {args.format}, by which other scripts"
            f" know the file; found {args.output.name}"
        )
    return args


def disagreement(
    deployed: DeployedNetwork, exported: ExportedNetwork, images: list[np.ndarray]
) -> float:
    """The largest difference over the images (H, W, 3) uint8, each also in a batch of two: of
    logits, as a share of their spread, or where the graph gives classes the share of pixels that
    are another class.
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


def main(args) -> None:
    if args.format == "onnx":
        require_onnx("onnx", "onnxscript", "onnxruntime")
    output_folder(args.output.absolute().parent)
    checkpoint = read_checkpoint(args.checkpoint)
    model, normalization = load_network(checkpoint, NUM_CLASSES)
    images = [read_image(path) for path in args.check_on]
    if not images:
        images = [
            street(np.random.default_rng(seed), CAMERA, size)[0]
            for seed, size in enumerate(((128, 256), (150, 231)))
        ]
    deployed = DeployedNetwork(
        model, normalization, not args.without_normalization, not args.without_argmax
    ).eval()
    metadata = {
        "name": checkpoint["name"],
        "num_classes": NUM_CLASSES,
        "classes": CLASS_NAMES,
        "input": normalization.as_dict(),
    }
    metadata |= {"architecture": checkpoint["architecture"], "step": checkpoint["step"]}

    with tempfile.TemporaryDirectory() as folder:
        unproved = Path(folder) / f"unproved{args.output.suffix}"
        if args.format == "onnx":
            export_onnx(deployed, unproved, metadata)
            exported = OnnxNetwork(unproved, NUM_CLASSES, torch.device("cpu"))
        else:
            export_program(deployed, unproved, metadata)
            exported = ProgramNetwork(unproved, NUM_CLASSES, torch.device("cpu"))
        found = disagreement(deployed, exported, images)
        allowed = LOGITS_TOLERANCE if args.without_argmax else PIXELS_TOLERANCE
        measure = "of the logits' spread" if args.without_argmax else "of the pixels"
        if not found <= allowed:  # NaN is no agreement
            raise ValueError(
                f"The exported network does not agree with {args.checkpoint}: it differs by"
                f" {found:.2g} {measure}, at most {allowed} is rounding. Nothing was written. Are"
                " the weights finite, and do torch and onnxruntime fit each other"
                " (requirements-export.txt)?"
            )
        write_file(args.output, unproved.read_bytes())
    size = args.output.stat().st_size / 1e6
    print(
        f"{args.output}: {size:.1f} MB, agrees with {checkpoint['name']} on {len(images)} images"
        f" (differs by {found:.2g} {measure})."
    )
    print(f"Run it: python -m scripts.predict IMAGE --model {args.output} --output DIR")


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
