"""The network as it is deployed: from camera bytes to a map of classes in one graph, as an ONNX
file or a program of torch.export.
"""

import importlib.util
import json
import logging
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.inference.fold_batch_norm import fold_batch_norms
from model.preprocessing import InputNormalization

METADATA_KEY = "bisenet"
"""Under this key an exported file says, as JSON, what it is: name, classes, input convention, what
is inside the graph.
"""


class DeployedNetwork(nn.Module):
    """The segmentation network, folded, with normalization and argmax inside or left to the caller.

    Input: with ``normalize_inside`` uint8 RGB images (N, H, W, 3), else float32 (N, 3, H, W),
    normalized already. Output: with ``argmax_inside`` uint8 trainIds (N, H, W), else float32 logits
    (N, num_classes, H, W).
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
        self.channel_order, self.normalize_inside, self.argmax_inside = (
            normalization.channel_order,
            normalize_inside,
            argmax_inside,
        )
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

    def example(self, size: tuple[int, int] = (128, 160), batch: int = 2) -> Tensor:
        """An input of the right type and layout: noise."""
        if self.normalize_inside:
            return torch.randint(0, 256, (batch, *size, 3), dtype=torch.uint8)
        return torch.randn(batch, 3, *size)


def require_onnx(*packages: str) -> None:
    """Raises ValueError with the remedy where one of the optional packages is not installed."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    if absent:
        raise ValueError(
            f"ONNX needs {', '.join(absent)}, which is not installed: pip install -r"
            " requirements-export.txt"
        )


def export_onnx(deployed: DeployedNetwork, path: Path, metadata: dict[str, Any]) -> None:
    """Writes ``deployed`` as an ONNX file of any batch and size (at least 32x32). Raises ValueError
    where ONNX is not installed.

    ``metadata`` (plain values) are stored in the file beside what the graph does: see METADATA_KEY.
    """
    require_onnx("onnx", "onnxscript")
    import onnx

    batch, height, width = (
        torch.export.Dim("batch"),
        torch.export.Dim("height", min=32),
        torch.export.Dim("width", min=32),
    )
    axes = (batch, height, width) if deployed.normalize_inside else (batch, None, height, width)
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's remarks to its own developers
            program = torch.onnx.export(
                deployed.eval(),
                (deployed.example(),),
                dynamo=True,
                dynamic_shapes=(
                    {place: axis for place, axis in enumerate(axes) if axis is not None},
                ),
                input_names=["image"],
                output_names=["train_ids" if deployed.argmax_inside else "logits"],
                verbose=False,
            )
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
    proto = program.model_proto
    proto.metadata_props.append(
        onnx.StringStringEntryProto(key=METADATA_KEY, value=_metadata(deployed, metadata))
    )
    with open(path, "wb") as file:
        file.write(proto.SerializeToString())


def export_program(deployed: DeployedNetwork, path: Path, metadata: dict[str, Any]) -> None:
    """Writes ``deployed`` as a program of torch.export (.pt2) of any batch and any size from 33x33
    on. ``metadata`` as in ``export_onnx``.
    """
    # 33: the smallest side whose stride-32 map has two pixels; a single one would be taken for a
    # constant.
    axes = {
        0: torch.export.Dim("batch"),
        2: torch.export.Dim("height", min=33),
        3: torch.export.Dim("width", min=33),
    }
    if deployed.normalize_inside:
        axes = {0: axes[0], 1: axes[2], 2: axes[3]}
    with torch.no_grad():
        program = torch.export.export(
            deployed.eval(), (deployed.example(),), dynamic_shapes=(axes,)
        )
    torch.export.save(program, path, extra_files={METADATA_KEY: _metadata(deployed, metadata)})


def _metadata(deployed: DeployedNetwork, metadata: dict[str, Any]) -> str:
    return json.dumps(
        metadata
        | {
            "normalize_inside": deployed.normalize_inside,
            "argmax_inside": deployed.argmax_inside,
        }
    )


class ExportedNetwork(ABC):
    """An exported file: uint8 RGB images (N, H, W, 3) -> uint8 trainIds (N, H, W), whatever its
    graph holds.

    Subclasses read the file and ``run`` the graph. ``least``: the smallest side of an image that it
    takes.
    """

    least = 32

    def __init__(self, path: Path, metadata: str | None, num_classes: int):
        """``metadata``: what the file holds under METADATA_KEY. Raises ValueError for none, or
        another number of classes.
        """
        if not metadata:
            raise ValueError(
                f"{path} does not say what its input and its classes are. Expected a file made by:"
                " python -m scripts.export"
            )
        self.metadata = json.loads(metadata)
        if self.metadata["num_classes"] != num_classes:
            raise ValueError(
                f"{path} has {self.metadata['num_classes']} classes; {num_classes} are expected here."
            )
        self.name, self.normalize = (
            self.metadata["name"],
            InputNormalization.from_dict(self.metadata["input"]),
        )

    @abstractmethod
    def run(self, image: np.ndarray) -> np.ndarray:
        """The graph as it is: its own input to its own output."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        if not self.metadata["normalize_inside"]:
            images = np.ascontiguousarray(
                self.normalize(torch.from_numpy(images)).numpy()
            )  # (N, 3, H, W)
        output = self.run(images)
        return output if self.metadata["argmax_inside"] else output.argmax(1).astype(np.uint8)


class OnnxNetwork(ExportedNetwork):
    """An ONNX file in ONNX Runtime. Raises FileNotFoundError; ValueError for a damaged file, one
    not exported here, or other classes.
    """

    def __init__(
        self, path: Path, num_classes: int, device: torch.device, threads: int | None = None
    ):
        require_onnx("onnxruntime")
        import onnxruntime

        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"No ONNX file at {path}. Make one with: python -m scripts.export CHECKPOINT"
                f" --output {path}"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        providers = ["CPUExecutionProvider"]
        if device.type == "cuda":
            if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                raise ValueError(
                    "--device cuda: this onnxruntime computes on the CPU only. Install"
                    " onnxruntime-gpu, or use --device cpu."
                )
            providers.insert(0, "CUDAExecutionProvider")
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # onnxruntime's own errors have no common base but this
            raise ValueError(
                f"{path} cannot be loaded by ONNX Runtime ({str(error).splitlines()[0]}). Export it"
                " again."
            ) from error
        super().__init__(
            path, self.session.get_modelmeta().custom_metadata_map.get(METADATA_KEY), num_classes
        )

    def run(self, image: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"image": image})[0]


class ProgramNetwork(ExportedNetwork):
    """A program of torch.export in PyTorch. Raises FileNotFoundError; ValueError for a damaged
    file, one not exported here, or other classes.
    """

    least = 33

    def __init__(self, path: Path, num_classes: int, device: torch.device):
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"No program at {path}. Make one with: python -m scripts.export CHECKPOINT --format"
                f" torch --output {path}"
            )
        found = {METADATA_KEY: ""}
        try:
            program = torch.export.load(path, extra_files=found)
        except (
            Exception
        ) as error:  # for a damaged file torch raises anything from RuntimeError to UnpicklingError
            raise ValueError(
                f"{path} cannot be loaded by torch.export ({str(error).splitlines()[0]}). Export it"
                " again."
            ) from error
        super().__init__(path, found[METADATA_KEY], num_classes)
        self.device = device
        if device.type != "cpu":  # where it was exported
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        self.program = program.module()

    def run(self, image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return (
                self.program(torch.from_numpy(np.ascontiguousarray(image)).to(self.device))
                .cpu()
                .numpy()
            )
