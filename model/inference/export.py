"""Exports a network, with normalization and argmax, to ONNX or torch.export."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.inference.exported_network import METADATA_KEY, require_onnx
from model.inference.fold_batch_norm import fold_batch_norms
from model.preprocessing import InputNormalization


class DeployedNetwork(nn.Module):
    """Folded segmentation network; normalization and argmax are in the graph or left to the caller.

    Input: with ``normalize_inside`` uint8 RGB images (N, H, W, 3), else normalized float32 images
    (N, 3, H, W). Output: with ``argmax_inside`` uint8 trainIds (N, H, W), else float32 logits (N,
    num_classes, H, W).
    """

    def __init__(
        self,
        network: nn.Module,
        normalization: InputNormalization,
        normalize_inside: bool = True,
        argmax_inside: bool = True,
    ):
        super().__init__()
        self.network = fold_batch_norms(network)
        self.channel_order = normalization.channel_order
        self.normalize_inside, self.argmax_inside = normalize_inside, argmax_inside
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(normalization, name)).view(3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        x = image
        if self.normalize_inside:
            x = image.permute(0, 3, 1, 2)  # (N, 3, H, W)
            x = x.flip(1) if self.channel_order == "bgr" else x
            x = (x.float() - self.mean) / self.std
        logits = self.network(x).logits  # (N, num_classes, H, W)
        return logits.argmax(1).to(torch.uint8) if self.argmax_inside else logits

    def example(self) -> Tensor:
        """Random input of the expected dtype and layout: two images of 128x160."""
        if self.normalize_inside:
            return torch.randint(0, 256, (2, 128, 160, 3), dtype=torch.uint8)
        return torch.randn(2, 3, 128, 160)


def export_onnx(deployed: DeployedNetwork, path: Path, metadata: dict[str, Any]) -> None:
    """Writes an ONNX file for any batch size and any image size of at least 32x32 pixels.

    ``metadata``: plain values, stored under METADATA_KEY. Raises ValueError if ONNX is not
    installed.
    """
    require_onnx("onnx", "onnxscript")
    import onnx

    output_name = "train_ids" if deployed.argmax_inside else "logits"
    with _quiet_exporter(), torch.no_grad():
        program = torch.onnx.export(
            deployed.eval(),
            (deployed.example(),),
            dynamo=True,
            dynamic_shapes=(_dynamic_axes(deployed, min_size=32),),
            input_names=["image"],
            output_names=[output_name],
            verbose=False,
        )
    proto = program.model_proto
    proto.metadata_props.append(
        onnx.StringStringEntryProto(key=METADATA_KEY, value=_metadata(deployed, metadata))
    )
    with open(path, "wb") as file:
        file.write(proto.SerializeToString())


def update_onnx_metadata(path: Path, values: dict[str, Any]) -> None:
    """Sets ``values`` (plain) in the metadata of an ONNX file that ``export_onnx`` wrote."""
    import onnx

    proto = onnx.load(path)
    entry = next(entry for entry in proto.metadata_props if entry.key == METADATA_KEY)
    entry.value = json.dumps(json.loads(entry.value) | values)
    path.write_bytes(proto.SerializeToString())


def export_program(deployed: DeployedNetwork, path: Path, metadata: dict[str, Any]) -> None:
    """Writes a torch.export program (.pt2) for any batch size and images of at least 33x33 pixels.

    ``metadata``: plain values, stored under METADATA_KEY.
    """
    # 33 is the smallest side with two pixels at stride 32; a single one would become a constant.
    axes = _dynamic_axes(deployed, min_size=33)
    with torch.no_grad():
        program = torch.export.export(
            deployed.eval(), (deployed.example(),), dynamic_shapes=(axes,)
        )
    torch.export.save(program, path, extra_files={METADATA_KEY: _metadata(deployed, metadata)})


def _dynamic_axes(deployed: DeployedNetwork, min_size: int) -> dict[int, torch.export.Dim]:
    """Variable axes of the input: batch, height and width."""
    height_axis = 1 if deployed.normalize_inside else 2
    return {
        0: torch.export.Dim("batch"),
        height_axis: torch.export.Dim("height", min=min_size),
        height_axis + 1: torch.export.Dim("width", min=min_size),
    }


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hides warnings and log messages that the ONNX exporter has for its own developers."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _metadata(deployed: DeployedNetwork, metadata: dict[str, Any]) -> str:
    """Metadata of an exported file as JSON, with what is part of the graph."""
    graph = {
        "normalize_inside": deployed.normalize_inside,
        "argmax_inside": deployed.argmax_inside,
        "precision": "fp32",
    }
    return json.dumps(metadata | graph)
