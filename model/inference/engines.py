"""Chooses the fastest engine that computes the same class maps, while it segments a data set.

The first images are segmented by the eager network and timed. If enough images are left, another
engine is prepared, timed on the same image, and takes over if it is faster and agrees. An exported
file is an engine of its own: nothing is chosen.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from model.fused_upsampling import upsampled_classes
from model.inference.export import DeployedNetwork, export_onnx
from model.inference.exported_network import (
    EXPORTED_NETWORKS,
    ExportedNetwork,
    OnnxNetwork,
    require_onnx,
)
from model.inference.predictor import Predictor
from model.loading import load_network

Segment = Callable[[Tensor], Tensor]
"""(N, H, W, 3) uint8 RGB images -> (N, H, W) uint8 class maps."""

ENGINES = ("eager", "onnx", "compiled")
MOST_CHANGED = 1e-3
"""Largest fraction of pixels to which another engine may give another class than float32."""
_LEAST_GAIN = 0.05
"""Fraction of the time that an engine must save at least: less is within the noise of a clock."""


class Engine(NamedTuple):
    """An engine that can be prepared. ``build`` raises ValueError or RuntimeError if it cannot.

    ``setup_s``: seconds that this takes on two cores; ``gain``: fraction of the time that the
    engine then saves. Both are typical values, measured; they decide whether to try it.
    """

    name: str
    build: Callable[[], Segment]
    setup_s: float
    gain: float


class EngineChoice:
    """Segments images, in the end with the fastest engine that agrees; counts its set-up.

    Args:
        eager: segments the first images, and all of them if nothing faster agrees.
        others: engines to try, the most promising first.
        float32: what to agree with; default: ``eager``. An engine may differ by MOST_CHANGED, or by
            as much as ``eager`` does.
        name: name of ``eager``.
        clock: seconds.

    ``engine``: the name of the engine in use.
    """

    def __init__(
        self,
        eager: Segment,
        others: Sequence[Engine] = (),
        float32: Segment | None = None,
        name: str = "eager",
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.engine = self._name = name
        self._eager, self._float32, self._clock = eager, float32, clock
        self._others, self._segment = list(others), eager
        self._left, self._calls = 0, 0
        self._shape: torch.Size | None = None

    def expect(self, images: int) -> None:
        """Tells how many images will be segmented: with few, no other engine is tried."""
        self._left = images

    def __call__(self, images: Tensor) -> Tensor:
        if self.engine != self._name and images.shape != self._shape:
            return self._eager(images)  # the chosen engine may be made for one size
        self._calls += 1
        self._left -= 1
        if self._calls != 2 or not self._others:
            return self._segment(images)
        start = self._clock()  # the first call was the warm-up
        found = self._eager(images)
        self._choose(images, found, self._clock() - start)
        return found

    def _choose(self, images: Tensor, found: Tensor, seconds: float) -> None:
        """Tries the other engines on ``images``, which took the eager one ``seconds``."""
        best, eager_s = seconds * (1 - _LEAST_GAIN), seconds
        for engine in self._others:
            if self._left * eager_s * engine.gain < 2 * engine.setup_s:
                continue
            try:
                segment = engine.build()
                prediction = segment(images)
            except (ValueError, RuntimeError):  # no compiler, no ONNX Runtime
                continue
            start = self._clock()
            segment(images)
            seconds = self._clock() - start
            if seconds < best and self._agrees(images, found, prediction):
                best, self.engine, self._segment = seconds, engine.name, segment
        self._shape = images.shape

    def _agrees(self, images: Tensor, found: Tensor, prediction: Tensor) -> bool:
        if self._float32 is None:
            return _changed(prediction, found) <= MOST_CHANGED
        exact = self._float32(images)
        return _changed(prediction, exact) <= max(MOST_CHANGED, _changed(found, exact))


def _changed(one: Tensor, other: Tensor) -> float:
    """Fraction of pixels that differ."""
    return int((one != other).sum()) / one.numel()


def choose_engine(
    eager: Predictor,
    checkpoint: dict[str, Any],
    num_classes: int,
    wanted: str = "auto",
) -> EngineChoice:
    """The engine choice of a checkpoint whose eager predictor is ``eager``.

    ``wanted``: one of ENGINES, or "auto": on a CPU ONNX Runtime in float32 and torch.compile in
    half precision are tried; on a GPU, and with test-time augmentation, nothing is.
    Raises ValueError if the wanted engine does not fit.
    """
    dtype = next(eager.network.parameters()).dtype
    engines = {
        "onnx": Engine("onnx", lambda: _onnx(checkpoint, num_classes), setup_s=15, gain=0.15),
        "compiled": Engine("compiled", lambda: _compiled(eager), setup_s=90, gain=0.1),
    }
    if wanted == "eager":
        return EngineChoice(eager)
    if wanted != "auto":
        if eager.views:
            raise ValueError(
                f"--engine {wanted} cannot augment: leave out --tta, or use --engine eager."
            )
        if wanted == "onnx" and (dtype != torch.float32 or eager.device.type != "cpu"):
            raise ValueError(
                "--engine onnx computes in float32 on the CPU: add --precision fp32 --device cpu."
            )
        return EngineChoice(engines[wanted].build(), name=wanted)
    if eager.views or eager.device.type != "cpu":
        return EngineChoice(eager)
    if dtype == torch.float32:
        return EngineChoice(eager, [engines["onnx"]])
    return EngineChoice(eager, [engines["compiled"]], _Float32(checkpoint, num_classes))


def open_exported(
    path: Path, device: torch.device, flags: Mapping[str, str | None]
) -> tuple[ExportedNetwork, EngineChoice]:
    """The network of a file of scripts.export, and the engine that segments with it.

    ``flags``: {flag: value} of what needs a checkpoint. Raises ValueError for other values than
    None and "auto", for a file that lacks what scoring needs, and what OnnxNetwork raises.
    """
    for flag, value in flags.items():
        if value not in (None, "auto"):
            raise ValueError(
                f"{flag} {value}: {path} is an exported file, which has its own. Leave {flag} out,"
                " or score the checkpoint."
            )
    network = EXPORTED_NETWORKS[path.suffix](path, device)
    missing = {"architecture", "step", "seen_images"} - network.metadata.keys()
    if missing:
        raise ValueError(
            f"{path} does not record {', '.join(sorted(missing))} of its checkpoint, which scoring"
            " needs: an older version exported it. Export it again."
        )
    name = "torch.export" if path.suffix == ".pt2" else "onnx"
    return network, EngineChoice(lambda x: torch.from_numpy(network(x.numpy())), name=name)


class _Float32:
    """The float32 network of a checkpoint, made when it is needed."""

    def __init__(self, checkpoint: dict[str, Any], num_classes: int):
        self.checkpoint, self.num_classes = checkpoint, num_classes

    def __call__(self, images: Tensor) -> Tensor:
        network, normalize = load_network(self.checkpoint, self.num_classes)
        return Predictor(network, normalize, torch.device("cpu"))(images)


def _onnx(checkpoint: dict[str, Any], num_classes: int) -> Segment:
    """Exports the network of a checkpoint and loads it into ONNX Runtime."""
    require_onnx("onnx", "onnxscript", "onnxruntime")
    network, normalize = load_network(checkpoint, num_classes)
    metadata = {"name": "", "num_classes": num_classes, "input": normalize.as_dict()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        export_onnx(DeployedNetwork(network, normalize).eval(), path, metadata)
        exported = OnnxNetwork(path, torch.device("cpu"))
    return lambda images: torch.from_numpy(exported(images.numpy()))


class _LowResolution(nn.Module):
    """The network with a single tensor as its output: logits before the last upsampling."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network.low_resolution(image).logits


def _compiled(eager: Predictor) -> Segment:
    """The network of a predictor, compiled for one image size by torch.compile."""
    import torch._inductor.config  # slow to import, and only needed here

    network = torch.compile(_LowResolution(eager.network.eval()), dynamic=False)

    def segment(images: Tensor) -> Tensor:
        with torch.no_grad(), torch._inductor.config.patch(freezing=True):
            x = eager.input(images)
            logits = network(x).float()
        height, width = images.shape[1:3]
        return upsampled_classes(logits, tuple(x.shape[-2:]))[:, :height, :width]

    return segment
