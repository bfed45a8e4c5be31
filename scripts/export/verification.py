"""The float32 export, compared with its checkpoint."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from dataset.class_set import ClassSet
from dataset.demo.scene import CAMERA, street
from dataset.image_io import read_image
from dataset.listing import ImageList
from model.inference.export import DeployedNetwork, export_onnx, export_program
from model.inference.exported_network import ExportedNetwork, OnnxNetwork, ProgramNetwork
from model.inference.tiling import with_border
from model.loading import load_network
from utils.training.provenance import inherited

CPU = torch.device("cpu")
LOGITS_TOLERANCE = 1e-3
"""Largest difference of two logits, relative to the standard deviation of all logits."""
PIXELS_TOLERANCE = 1e-4
"""Largest fraction of pixels with another class, where two classes differ by a rounding error."""
STREET_SIZES = ((128, 256), (150, 231))
"""Sizes (height, width) of the generated streets of the comparison."""
RECORDED = ("name", "architecture", "step", "discriminator")
"""What an exported file records of its checkpoint, beside what the weights learned from."""


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


class ExportForm(NamedTuple):
    """``file_format``: "onnx" or "torch". The rest: see DeployedNetwork."""

    file_format: str
    normalize_inside: bool
    argmax_inside: bool


def verified_export(
    form: ExportForm,
    path: Path,
    file: Path,
    checkpoint: dict[str, Any],
    class_set: ClassSet,
    checked: ImageList | None,
) -> str:
    """Exports the checkpoint to ``path`` and compares the two; returns the result in words.

    ``file``: where the checkpoint lies, for the error. ``checked``: images to compare them on;
    None: generated ones. Raises ValueError if they differ by more than rounding.
    """
    model, normalization = load_network(checkpoint, len(class_set))
    deployed = DeployedNetwork(model, normalization, form.normalize_inside, form.argmax_inside)
    deployed.eval()
    metadata = {key: checkpoint[key] for key in RECORDED if key in checkpoint}
    metadata |= inherited([], checkpoint)
    metadata |= {
        "num_classes": len(class_set),
        "classes": class_set.names,
        "class_set": class_set.as_dict(),
        "input": normalization.as_dict(),
    }
    tolerance, unit = PIXELS_TOLERANCE, "of the pixels"
    if not form.argmax_inside:
        tolerance, unit = LOGITS_TOLERANCE, "of the standard deviation of the logits"
    exported = export(deployed, path, form.file_format, metadata)
    difference = disagreement(deployed, exported, comparison_images(checked))
    if not difference <= tolerance:  # also for NaN
        raise ValueError(
            f"The exported network does not agree with {file}: it differs by"
            f" {difference:.2g} {unit}, more than rounding ({tolerance}). Nothing was written."
            " Are the weights finite, and do the versions of torch and onnxruntime fit"
            " (requirements-export.txt)?"
        )
    return (
        f"agrees with {checkpoint['name']} on {len(checked or STREET_SIZES)} images (differs by"
        f" {difference:.2g} {unit})"
    )
