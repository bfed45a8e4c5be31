"""Static int8 quantization of exported ONNX files, with the tools of ONNX Runtime.

A convolution of int8 weights and 8-bit activations computes about what the float32 one computes, in
a third of the time on processors with instructions for it (AVX-512 VNNI, AMX, Arm dot product). The
scales of the activations are measured on images (calibration). The file has pairs of QuantizeLinear
and DequantizeLinear nodes (QDQ) around float32 operators, which runtimes fuse.
"""

import logging
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from model.inference.export import update_onnx_metadata
from model.inference.exported_network import INT8_SUFFIX, OnnxNetwork, require_onnx

OPERATORS = ("Conv", "Relu", "Add", "Mul", "MaxPool", "Concat", "Resize")
"""Operators that are quantized."""
GOAL = 0.01
"""Fraction of pixels with another class above which layers are returned to float32."""
MOST_FLOAT_LAYERS = 6
_CPU = torch.device("cpu")
_CHUNK = 8
"""Images between two reductions of the measured ranges, whose tensors are kept until then."""


def calibrate(path: Path, images: Iterable[np.ndarray]) -> Any:
    """Ranges of the activations of an ONNX file: smallest and largest value over all images.

    ``images``: inputs of the file without the batch axis, of any sizes. Returns what ``quantize``
    takes (TensorsData of onnxruntime). Raises ValueError if there is no image.
    """
    require_onnx("onnx", "onnxruntime")
    from onnxruntime.quantization import create_calibrator

    chunk: list[np.ndarray] = []
    found = False
    with tempfile.TemporaryDirectory() as folder, _quiet():
        augmented = str(Path(folder) / "augmented.onnx")
        calibrator = create_calibrator(path, OPERATORS, augmented_model_path=augmented)
        for image in images:
            found = True
            chunk.append(image)
            if len(chunk) == _CHUNK:
                calibrator.collect_data(_reader(chunk))
                chunk = []
        if not found:
            raise ValueError("No image to calibrate on: give at least one.")
        if chunk:
            calibrator.collect_data(_reader(chunk))
        return calibrator.compute_data()


def _reader(images: Sequence[np.ndarray]) -> Any:
    """What onnxruntime reads calibration inputs from."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.inputs = iter([{"image": image[None]} for image in images])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.inputs, None)

    return Reader()


def quantize(
    path: Path,
    output: Path,
    ranges: Any,
    symmetric: bool = False,
    keep: Collection[str] = (),
    only: Collection[str] = (),
) -> None:
    """Writes the float32 ONNX file ``path`` to ``output``: int8 weights, 8-bit activations.

    Weights have a scale for each output channel, activations one for each tensor. ``float_nodes``
    stay in float32.

    Args:
        ranges: what ``calibrate`` measured.
        symmetric: int8 activations with zero point 0, as TensorRT wants them; default: uint8 with
            any zero point, which rounds less, and which ONNX Runtime computes faster on x86.
        keep: names of more nodes that stay in float32.
        only: names of the only nodes to quantize; default: all.
    """
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    with _quiet():
        network = onnx.load(path)
        quantizer = QDQQuantizer(
            network,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8 if symmetric else QuantType.QUInt8,
            tensors_range=ranges,
            nodes_to_quantize=list(only),
            nodes_to_exclude=[*float_nodes(network), *keep],
            op_types_to_quantize=list(OPERATORS),
            extra_options={"WeightSymmetric": True, "ActivationSymmetric": symmetric},
        )
        quantizer.quantize_model()
        quantizer.model.save_model_to_file(str(output), False)
    update_onnx_metadata(output, {"precision": "int8"})


def float_nodes(network: Any) -> list[str]:
    """Names of the nodes of an ONNX network that always stay in float32.

    They are the head (the last convolution) and what follows it, because classes of 8-bit scores
    would tie; and the attention's convolutions of single values, which cost nothing.
    """
    head = [node for node in network.graph.node if node.op_type == "Conv"][-1]
    names, following, pooled = [head.name], set(head.output), set()
    for node in network.graph.node:  # sorted by dependence
        if following & set(node.input):
            following |= set(node.output)
            names.append(node.name)
        pointwise = node.op_type in ("Conv", "Relu", "Sigmoid") and node.input[0] in pooled
        if node.op_type == "ReduceMean" or pointwise:
            pooled |= set(node.output)
            names.append(node.name)
    return names


def convolution_layers(path: Path) -> dict[str, str]:
    """{node: layer} of the convolutions that ``quantize`` changes; layers are named as in torch."""
    import onnx

    network = onnx.load(path)
    always_float = set(float_nodes(network))
    return {
        node.name: node.input[1].removeprefix("network.").removesuffix(".weight")
        for node in network.graph.node
        if node.op_type == "Conv" and node.name not in always_float
    }


class QuantizationTrial:
    """Compares quantized variants of a network with the float32 one, on a few images.

    Args:
        path: float32 ONNX file with uint8 images as input and trainIds as output.
        ranges: what ``calibrate`` measured.
        images: (H, W, 3) uint8, of any sizes.
        symmetric: see ``quantize``.
    """

    def __init__(
        self, path: Path, ranges: Any, images: Iterable[np.ndarray], symmetric: bool = False
    ):
        self.path, self.ranges, self.symmetric = path, ranges, symmetric
        self.images = [image[None] for image in images]
        network = OnnxNetwork(path, _CPU)
        self.expected = [network(image) for image in self.images]

    def changed(self, keep: Collection[str] = (), only: Collection[str] = ()) -> float:
        """Fraction of pixels to which a quantized network gives another class.

        ``keep``, ``only``: see ``quantize``.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"trial{INT8_SUFFIX}"
            quantize(self.path, path, self.ranges, self.symmetric, keep, only)
            network = OnnxNetwork(path, _CPU)
        pairs = zip(self.images, self.expected, strict=True)
        return float(np.mean([np.mean(network(image) != found) for image, found in pairs]))


def choose_float_layers(trial: QuantizationTrial) -> list[str]:
    """Names of the convolution nodes that should stay in float32; none if int8 changes few pixels.

    Each convolution is quantized alone. Those that then change most pixels are kept, one after the
    other, until at most GOAL of the pixels change, or MOST_FLOAT_LAYERS are kept.
    """
    if trial.changed() <= GOAL:
        return []
    nodes = list(convolution_layers(trial.path))
    alone = {
        node: trial.changed(only=[node])
        for node in tqdm(nodes, desc="layers in int8, one at a time", disable=None)
    }
    kept: list[str] = []
    for node in sorted(nodes, key=alone.__getitem__, reverse=True)[:MOST_FLOAT_LAYERS]:
        kept.append(node)
        if trial.changed(kept) <= GOAL:
            break
    return kept


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides log messages that ask for a preprocessing which the exporter has already done."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)
