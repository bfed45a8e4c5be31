"""The int8 export: quantized, and compared with the float32 network."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from dataset.image_io import image_size, read_image
from dataset.labels import IGNORE_INDEX
from dataset.listing import ImageList
from model.inference.export import update_onnx_metadata
from model.inference.exported_network import OnnxNetwork
from model.inference.quantize import (
    QuantizationTrial,
    calibrate,
    choose_float_layers,
    convolution_layers,
    quantize,
)
from model.inference.tiling import with_border
from model.inference.tta import MIN_SIZE
from scripts.export.verification import CPU
from utils.evaluation.metrics import confusion_matrix, scores
from utils.training.provenance import inherited

MOST_CHANGED = 0.03
"""Largest fraction of pixels with another class in int8, where no labels tell the loss."""
TRIAL_IMAGES = 8
"""Images on which every layer is tried in int8."""


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


class Int8Options(NamedTuple):
    """``calibrate_on``: the images to calibrate on, as given; the rest: see --help."""

    calibrate_on: list[str]
    symmetric: bool
    most_lost: float


def quantize_export(
    float_file: Path,
    int8_file: Path,
    calibration: ImageList,
    scored: ImageList | None,
    options: Int8Options,
) -> str:
    """Writes ``int8_file`` from ``float_file``; returns what was lost, in words.

    Raises ValueError if too much was lost.
    """
    images = tqdm(calibration, desc="calibration", unit="image", disable=None)
    inputs = (with_border(read_image(frame.image)[None], MIN_SIZE)[0] for frame in images)
    ranges = calibrate(float_file, inputs)
    few = calibration.subset(range(0, len(calibration), -(-len(calibration) // TRIAL_IMAGES)))
    trial_images = [np.asarray(read_image(frame.image)) for frame in few]
    trial = QuantizationTrial(float_file, ranges, trial_images, options.symmetric)
    kept = choose_float_layers(trial)
    quantize(float_file, int8_file, ranges, options.symmetric, kept)

    layers = convolution_layers(float_file)
    float_layers = [layers[node] for node in kept]
    calibrated_on = {
        "given": options.calibrate_on,
        "fingerprint": calibration.fingerprint(),
        "sizes": sorted({image_size(frame.image) for frame in calibration}),
    }
    recorded = {"float32_layers": float_layers, "calibrated_on": calibrated_on}
    # As statistics of BatchNorm do, the ranges come from these images.
    recorded |= inherited(calibration.identities, OnnxNetwork(float_file, CPU).metadata)
    update_onnx_metadata(int8_file, recorded)
    networks = [OnnxNetwork(path, CPU) for path in (float_file, int8_file)]
    loss = require_little_loss(compare(*networks, scored or calibration), options.most_lost)
    return (
        f"{len(layers) - len(kept)} of {len(layers)} convolutions are in int8"
        f" (float32: {', '.join(float_layers) or 'none'}, and the attention and the head).\n{loss}"
    )
