"""Exports a network with normalization and argmax (ONNX, torch.export); runs exported files."""

import importlib.util
import inspect
import json
import logging
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.inference.fold_batch_norm import fold_batch_norms
from model.inference.program_file import read_metadata, reason_of
from model.inference.tiling import with_border
from model.preprocessing import InputNormalization

METADATA_KEY = "bisenet"
"""Metadata key of exported files.

Its value is JSON: name, classes, input normalization, precision, and whether normalization and
argmax are part of the graph.
"""
INT8_SUFFIX = ".int8.onnx"
"""Suffix of quantized files, and of no others."""


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

    def example(self, size: tuple[int, int] = (128, 160), batch: int = 2) -> Tensor:
        """Random input of the expected dtype and layout; ``size`` is (height, width)."""
        if self.normalize_inside:
            return torch.randint(0, 256, (batch, *size, 3), dtype=torch.uint8)
        return torch.randn(batch, 3, *size)


def require_onnx(*packages: str) -> None:
    """Raises ValueError, with the remedy, if one of the optional packages is not installed."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    if absent:
        raise ValueError(
            f"ONNX needs {', '.join(absent)}, which is not installed: pip install -r"
            " requirements-export.txt"
        )


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


class ExportedNetwork(ABC):
    """Exported network: uint8 RGB images (N, H, W, 3) of any size -> uint8 trainIds (N, H, W).

    Normalization and argmax are done here if the graph does not contain them; images smaller than
    ``min_size`` pixels each way, the least that the graph takes, get a border. Subclasses read the
    file and ``run`` the graph.
    """

    min_size = 32

    def __init__(self, path: Path, metadata: str | None):
        """``metadata``: the value of METADATA_KEY in the file. Raises ValueError without it."""
        if not metadata:
            raise ValueError(
                f"{path} has no metadata about its input and classes. Expected a file made by:"
                " python -m scripts.export"
            )
        self.path, self.metadata = path, json.loads(metadata)
        self.name = self.metadata["name"]
        self.precision = self.metadata.get("precision", "fp32")  # older files do not say it
        self.normalize = InputNormalization.from_dict(self.metadata["input"])

    def require_classes(self, expected: int) -> None:
        """Raises ValueError if the network has another number of classes than ``expected``."""
        if self.metadata["num_classes"] != expected:
            raise ValueError(
                f"{self.path} has {self.metadata['num_classes']} classes; expected {expected}."
            )

    @abstractmethod
    def run(self, image: np.ndarray) -> np.ndarray:
        """Runs the graph: its own input to its own output, see DeployedNetwork."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        height, width = images.shape[1:3]
        images = with_border(images, self.min_size)
        if not self.metadata["normalize_inside"]:
            normalized = self.normalize(torch.from_numpy(images))  # (N, 3, H, W)
            images = np.ascontiguousarray(normalized.numpy())
        output = self.run(images)
        if not self.metadata["argmax_inside"]:
            output = output.argmax(1).astype(np.uint8)
        return output[:, :height, :width]

    def segment(self, image: np.ndarray) -> np.ndarray:
        """Predicts the class map of one image: (H, W, 3) uint8 RGB -> (H, W) uint8 trainIds."""
        return self(image[None])[0]


class OnnxNetwork(ExportedNetwork):
    """ONNX file, run by ONNX Runtime.

    Raises FileNotFoundError, or ValueError for a damaged file, or one that scripts.export has not
    written.
    """

    def __init__(self, path: Path, device: torch.device, threads: int | None = None):
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
        except Exception as error:  # the errors of onnxruntime have no other common base
            raise ValueError(
                f"{path} cannot be loaded by ONNX Runtime ({reason_of(error)})."
                f" {_remedy(str(error), onnxruntime.__version__)}"
            ) from error
        if missing := set(providers) - set(self.session.get_providers()):
            # ONNX Runtime only logs that it could not load CUDA's libraries, and goes on without.
            raise ValueError(
                f"--device cuda: ONNX Runtime {onnxruntime.__version__} could not start its"
                f" {', '.join(missing)} and would compute on the CPU; what it printed above says"
                " why. Install the CUDA and cuDNN that it was built for, or use --device cpu."
            )
        metadata = self.session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        super().__init__(path, metadata)
        _check_precision(path, self.precision)

    def run(self, image: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"image": image})[0]


_ABSENT_OPERATOR = re.compile(
    "not a registered function/op|Could not find an implementation|only \\*?guarantees\\*? support"
)


def _remedy(message: str, version: str) -> str:
    """What to do about an error of ONNX Runtime while it loads a file."""
    if not _ABSENT_OPERATOR.search(message):
        return "Export it again."
    return (
        f"ONNX Runtime {version} lacks an operator of this file: install a newer one (pip install"
        " --upgrade -r requirements-export.txt), or export a float32 file (without --int8)."
    )


def _check_precision(path: Path, precision: str) -> None:
    """Raises ValueError where a file's name promises another precision than its content has."""
    promised = "int8" if path.name.endswith(INT8_SUFFIX) else "fp32"
    if promised != precision:
        stem = path.name.removesuffix(INT8_SUFFIX).removesuffix(".onnx")
        right_name = stem + (INT8_SUFFIX if precision == "int8" else ".onnx")
        raise ValueError(
            f"{path} holds a network in {precision}, but its name says {promised}. Names in"
            f" {INT8_SUFFIX} are for int8: rename it to {right_name}, or export it again."
        )


class ProgramNetwork(ExportedNetwork):
    """Program of torch.export (.pt2), run by PyTorch. Raises what OnnxNetwork raises.

    Nothing of the file is run before model.inference.program_file has looked at it.
    """

    min_size = 33

    def __init__(self, path: Path, device: torch.device):
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"No program at {path}. Make one with: python -m scripts.export CHECKPOINT --format"
                f" torch --output {path}"
            )
        super().__init__(path, read_metadata(path, METADATA_KEY))
        try:
            program = torch.export.load(path)
        except Exception as error:  # a damaged file raises RuntimeError, UnpicklingError, ...
            raise ValueError(
                f"{path} cannot be loaded by torch.export ({reason_of(error)}). Export it again."
            ) from error
        self.device = device
        if device.type != "cpu":  # programs are exported on the CPU
            from torch.export.passes import move_to_device_pass

            # With its number: older torch takes "cuda" in a program for another than "cuda:0".
            number = torch.cuda.current_device() if device.index is None else device.index
            program = move_to_device_pass(program, torch.device(device.type, number))
        self.program = _module_without_guards(program)

    def run(self, image: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(np.ascontiguousarray(image)).to(self.device)
        with torch.inference_mode():
            return self.program(x).cpu().numpy()


def _module_without_guards(program: torch.export.ExportedProgram) -> nn.Module:
    """The program as a module; guards are Python code of the file, which newer torch would run."""
    parameters = inspect.signature(program.module).parameters
    return program.module(**({"check_guards": False} if "check_guards" in parameters else {}))


EXPORTED_NETWORKS = {".onnx": OnnxNetwork, ".pt2": ProgramNetwork}
"""Exported networks by the suffix of their files."""
