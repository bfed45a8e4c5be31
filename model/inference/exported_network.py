"""Runs exported files: ONNX and torch.export."""

import importlib.util
import inspect
import json
import re
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import torch
from torch import nn

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


def require_onnx(*packages: str) -> None:
    """Raises ValueError, with the remedy, if one of the optional packages is not installed."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    if absent:
        raise ValueError(
            f"ONNX needs {', '.join(absent)}, which is not installed: pip install -r"
            " requirements-export.txt"
        )


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

    def __init__(self, path: Path, device: torch.device):
        require_onnx("onnxruntime")
        import onnxruntime

        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"No ONNX file at {path}. Make one with: python -m scripts.export CHECKPOINT"
                f" --output {path}"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
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
