"""Int8 quantization of exported ONNX files: what is int8, and what stays in float32."""

import platform
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from model.bisenet import SegmentationOutput
from model.inference import quantize as module
from model.inference.export import DeployedNetwork, export_onnx
from model.inference.exported_network import OnnxNetwork
from model.preprocessing import INPUT_CONVENTIONS

onnx = pytest.importorskip("onnx", reason="optional: pip install -r requirements-export.txt")
pytest.importorskip("onnxruntime", reason="optional: pip install -r requirements-export.txt")
pytest.importorskip("onnxscript", reason="optional: pip install -r requirements-export.txt")

CPU = torch.device("cpu")
METADATA = {"name": "tiny", "num_classes": 5, "input": INPUT_CONVENTIONS["imagenet"].as_dict()}


class TinyNetwork(nn.Module):
    """Two convolutions, attention of single values, a head, and the last upsampling."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 1, 1)
        self.attention, self.head = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 5, 1)

    def forward(self, image):
        x = self.second(self.first(image).relu()).relu()
        x = x * self.attention(x.mean((2, 3), keepdim=True)).sigmoid()
        logits = nn.functional.interpolate(self.head(x), image.shape[-2:], mode="bilinear")
        return SegmentationOutput(logits, ())


def images(count=3, size=(40, 56)):
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 256, (count, 5, 7, 3), dtype=np.uint8)
    return [np.kron(image, np.ones((8, 8, 1), np.uint8))[: size[0], : size[1]] for image in smooth]


def has_dot_product() -> bool:
    """Whether this processor has an instruction for sums of 8-bit products; x86 may lack it."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "x86" not in platform.machine() or "vnni" in flags


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("tiny") / "net.onnx"
    deployed = DeployedNetwork(TinyNetwork(), INPUT_CONVENTIONS["imagenet"])
    export_onnx(deployed.eval(), path, METADATA)
    return path


@pytest.fixture(scope="module")
def ranges(exported):
    return module.calibrate(exported, images())


@pytest.fixture(scope="module")
def quantized(exported, ranges):
    path = exported.with_suffix(".int8.onnx")
    module.quantize(exported, path, ranges)
    return path


def weights(path):
    """{layer: array} of the convolution weights that are stored in the file."""
    network = onnx.load(path)
    return {
        tensor.name.removeprefix("network.").split(".weight")[0]: onnx.numpy_helper.to_array(tensor)
        for tensor in network.graph.initializer
        if ".weight" in tensor.name
        and "scale" not in tensor.name
        and "zero_point" not in tensor.name
    }


def test_convolutions_are_int8_head_and_attention_are_not(quantized):
    """Weights are int8 but for the head, whose classes would tie, and for single values."""
    types = {name: str(array.dtype) for name, array in weights(quantized).items()}
    assert types == {
        "first": "int8",
        "second": "int8",
        "attention": "float32",
        "head": "float32",
    }


def test_weights_have_a_scale_for_each_channel(quantized):
    network = onnx.load(quantized)
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in network.graph.initializer}
    scales = [array for name, array in arrays.items() if name.endswith("weight_scale")]
    assert sorted(scale.shape for scale in scales) == [(16,), (16,)]


def test_input_and_output_are_those_of_the_float_file(exported, quantized):
    """uint8 images in, trainIds out, any batch and size; nearly the same classes.

    Without an instruction for it, x86 adds pairs of 8-bit products in 16 bits, which overflow.
    """
    most = 0.03 if has_dot_product() else 0.1
    float32, int8 = (OnnxNetwork(path, CPU) for path in (exported, quantized))
    assert [(i.name, i.type) for i in int8.session.get_inputs()] == [("image", "tensor(uint8)")]
    for count, size in ((1, (40, 56)), (2, (33, 47))):
        batch = np.stack(images(count, size))
        expected, found = float32(batch), int8(batch)
        assert found.dtype == np.uint8
        assert found.shape == expected.shape
        assert len(np.unique(expected)) > 1
        assert (found != expected).mean() < most


def test_metadata_of_the_float_file_and_the_precision(exported, quantized):
    float32, int8 = (OnnxNetwork(path, CPU).metadata for path in (exported, quantized))
    assert float32["precision"] == "fp32"
    assert int8 == float32 | {"precision": "int8"}


@pytest.mark.parametrize("symmetric", [False, True])
def test_symmetric_activations_have_zero_point_zero(exported, ranges, tmp_path, symmetric):
    """TensorRT takes int8 activations with zero point 0 only."""
    path = tmp_path / "net.int8.onnx"
    module.quantize(exported, path, ranges, symmetric=symmetric)
    zeros = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(path).graph.initializer
        if tensor.name.endswith("zero_point")
    ]
    zeros = [zero for zero in zeros if zero.dtype != np.int32]  # of biases
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros) == symmetric


def test_layers_can_stay_in_float(exported, ranges, tmp_path):
    """``keep`` names them, ``only`` names all others."""
    layers = module.convolution_layers(exported)
    assert sorted(layers.values()) == ["first", "second"]
    node = next(node for node, layer in layers.items() if layer == "first")
    for number, chosen in enumerate(({"keep": [node]}, {"only": [node]})):
        path = tmp_path / f"{number}.int8.onnx"
        module.quantize(exported, path, ranges, **chosen)
        is_float = weights(path)["first"].dtype == np.float32
        assert is_float == ("keep" in chosen)
        assert (weights(path)["second"].dtype == np.float32) != is_float


def test_a_trial_measures_changed_pixels(exported, ranges, quantized):
    trial = module.QuantizationTrial(exported, ranges, images())
    float32, int8 = (OnnxNetwork(path, CPU) for path in (exported, quantized))
    batch = np.stack(images())
    assert trial.changed() == pytest.approx((float32(batch) != int8(batch)).mean())


def test_no_image_to_calibrate_on_is_an_error(exported):
    with pytest.raises(ValueError, match="No image to calibrate on"):
        module.calibrate(exported, [])


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        ({"a": 0.001, "b": 0.002}, []),
        ({"a": 0.001, "b": 0.02, "c": 0.03, "d": 0.0}, ["c", "b"]),
        (dict.fromkeys("abcdefgh", 0.05), list("abcdef")),
    ],
)
def test_layers_that_lose_most_stay_in_float(losses, kept, monkeypatch):
    """The fewest that bring the loss to the goal, at most MOST_FLOAT_LAYERS."""

    def changed(keep=(), only=()):
        return sum(loss for name, loss in losses.items() if name not in keep and not only) + sum(
            losses[name] for name in only
        )

    monkeypatch.setattr(module, "convolution_layers", lambda path: dict.fromkeys(losses, "layer"))
    trial = SimpleNamespace(path=None, changed=changed)
    assert module.choose_float_layers(trial) == kept


def test_a_name_that_promises_another_precision_is_refused(exported, quantized, tmp_path):
    """A float32 file called .int8.onnx, and the reverse."""
    for content, name, right in (
        (exported, "a.int8.onnx", "a.onnx"),
        (quantized, "a.onnx", "a.int8.onnx"),
    ):
        (tmp_path / name).write_bytes(content.read_bytes())
        with pytest.raises(ValueError, match=rf"but its name says .*rename it to {right}"):
            OnnxNetwork(tmp_path / name, CPU)


def test_an_operator_that_the_runtime_lacks_is_named(tmp_path):
    """The remedy is a newer ONNX Runtime, or a float32 file."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    x, y = (helper.make_tensor_value_info(name, kind, [1]) for name in "xy")
    node = helper.make_node("Unheard", ["x"], ["y"], domain="com.microsoft")
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "net.onnx")
    with pytest.raises(ValueError, match=r"lacks an operator .* install a newer one"):
        OnnxNetwork(tmp_path / "net.onnx", CPU)
