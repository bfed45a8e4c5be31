"""scripts/convert.py: a network with the names of the reference implementation keeps its logits."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import eval as evaluation
from model.backbone import build_backbone
from model.loading import load_network
from scripts import convert as entry
from tests.helpers.networks import write_checkpoint
from utils.training.checkpoint import read_checkpoint


class ConvBlock(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, stride: int = 2):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels_out)

    def forward(self, x):
        return F.relu(self.bn(self.conv1(x)))


class Refinement(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels)

    def forward(self, x):
        return x * torch.sigmoid(self.bn(self.conv(x.mean((2, 3), keepdim=True))))


class SpatialPath(nn.Module):
    def __init__(self):
        super().__init__()
        self.convblock1, self.convblock2 = ConvBlock(3, 64), ConvBlock(64, 128)
        self.convblock3 = ConvBlock(128, 256)

    def forward(self, x):
        return self.convblock3(self.convblock2(self.convblock1(x)))


class ContextPath(nn.Module):
    """Holds the ResNet twice: as ``features`` and layer by layer."""

    def __init__(self, backbone: str):
        super().__init__()
        self.features = getattr(torchvision.models, backbone)(weights=None)
        for layer in ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"):
            setattr(self, layer, getattr(self.features, layer))

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        feature3 = self.layer3(self.layer2(self.layer1(x)))
        feature4 = self.layer4(feature3)
        return feature3, feature4, feature4.mean((2, 3), keepdim=True)


class FeatureFusion(nn.Module):
    def __init__(self, classes: int, channels: int):
        super().__init__()
        self.convblock = ConvBlock(channels, classes, stride=1)
        self.conv1, self.conv2 = nn.Conv2d(classes, classes, 1), nn.Conv2d(classes, classes, 1)

    def forward(self, spatial, context):
        feature = self.convblock(torch.cat([spatial, context], 1))
        attention = self.conv2(F.relu(self.conv1(feature.mean((2, 3), keepdim=True))))
        return feature + feature * torch.sigmoid(attention)


class ReferenceBiSeNet(nn.Module):
    """BiSeNet with the reference implementation's names; its 1x1 heads follow the upsampling."""

    def __init__(self, classes: int = 19, backbone: str = "resnet18"):
        super().__init__()
        c16, c32 = (256, 512) if backbone == "resnet18" else (1024, 2048)
        self.saptial_path, self.context_path = SpatialPath(), ContextPath(backbone)
        self.attention_refinement_module1 = Refinement(c16)
        self.attention_refinement_module2 = Refinement(c32)
        self.supervision1 = nn.Conv2d(c16, classes, 1)
        self.supervision2 = nn.Conv2d(c32, classes, 1)
        self.feature_fusion_module = FeatureFusion(classes, 256 + c16 + c32)
        self.conv = nn.Conv2d(classes, classes, 1)

    def forward(self, x):
        spatial = self.saptial_path(x)
        context1, context2, tail = self.context_path(x)
        context1 = self.attention_refinement_module1(context1)
        context2 = self.attention_refinement_module2(context2) * tail
        size8 = spatial.shape[-2:]
        context1 = F.interpolate(context1, size=size8, mode="bilinear")
        context2 = F.interpolate(context2, size=size8, mode="bilinear")
        fused = self.feature_fusion_module(spatial, torch.cat([context1, context2], 1))
        features = (
            (self.conv, fused),
            (self.supervision1, context1),
            (self.supervision2, context2),
        )
        return [
            conv(F.interpolate(feature, scale_factor=8, mode="bilinear"))
            for conv, feature in features
        ]


def reference_network(classes: int = 19, backbone: str = "resnet18") -> ReferenceBiSeNet:
    """With random weights and BatchNorm statistics, in evaluation mode."""
    torch.manual_seed(1)
    network = ReferenceBiSeNet(classes, backbone)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.0)
            module.bias.data.uniform_(-0.2, 0.2)
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def run(*words) -> None:
    entry.main(entry.parse_arguments([*map(str, words)]))


@pytest.mark.parametrize(("backbone", "wrapped"), [("resnet18", False), ("resnet101", True)])
def test_a_converted_network_gives_the_same_logits(tmp_path, backbone, wrapped):
    """Main and auxiliary logits, from a plain state dict or a checkpoint of DataParallel."""
    reference = reference_network(backbone=backbone)
    state = reference.state_dict()
    assert "context_path.features.fc.weight" in state
    assert "context_path.layer1.0.conv1.weight" in state
    if wrapped:
        state = {f"module.{key}": value for key, value in state.items()}
    torch.save({"epoch": 3, "model_state": state} if wrapped else state, tmp_path / "x.pth")
    run(tmp_path / "x.pth", "--input", "caffe_bgr", "--output", tmp_path / "run/last.pt")
    checkpoint = read_checkpoint(tmp_path / "run/last.pt")
    converted, normalize = load_network(checkpoint, 19)
    assert (normalize.channel_order, normalize.mean) == ("bgr", (73.16, 82.91, 72.39))
    image = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        expected, found = reference(image), converted(image, with_aux=True)
    assert expected[0].std() > 0.01
    for a, b in zip((found.logits, *found.aux), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.std()))


def test_the_result_can_be_scored(cityscapes_root, tmp_path, capsys):
    """eval.py reads the converted checkpoint; --name appears in its table."""
    torch.save(reference_network().state_dict(), tmp_path / "x.pth")
    output = tmp_path / "last.pt"
    run(tmp_path / "x.pth", "--input", "unit_rgb", "--output", output, "--name", "reference-18")
    words = [str(output), "--cityscapes", str(cityscapes_root), "--workers", "0"]
    evaluation.main(evaluation.parse_arguments(words))
    assert "| reference-18" in capsys.readouterr().out


@pytest.mark.parametrize("prefix", ["", "module.backbone."])
def test_a_backbone_becomes_a_plain_state_dict(tmp_path, prefix):
    """A ResNet inside another network is found by its tensors; --backbone-weights reads it."""
    resnet = torchvision.models.resnet18(weights=None)
    state = {f"{prefix}{key}": value for key, value in resnet.state_dict().items()}
    state["decoder.weight"] = torch.zeros(3)
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    run(tmp_path / "x.pth", "--output", tmp_path / "resnet18.pth")
    backbone = build_backbone("resnet18", str(tmp_path / "resnet18.pth"))
    assert torch.equal(backbone.layer4[1].conv2.weight, resnet.layer4[1].conv2.weight)


@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_mobilenet_is_found_by_its_order(tmp_path, prefix):
    """Other names, torchvision's order: what earlier implementations of MobileNetV2 have."""
    features = torchvision.models.mobilenet_v2(weights=None).state_dict()
    state = {
        f"{prefix}features.0.0.weight" if number == 0 else f"{prefix}features.{number}.{key}": value
        for number, (key, value) in enumerate(
            (key.rsplit(".", 1)[-1], value)
            for key, value in features.items()
            if key.startswith("features.")
        )
    }
    torch.save(state, tmp_path / "x.pt")
    run(tmp_path / "x.pt", "--output", tmp_path / "mobilenet_v2.pth")
    backbone = build_backbone("mobilenet_v2", str(tmp_path / "mobilenet_v2.pth"))
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, features[key]), key
    swapped = list(state.items())
    swapped[1], swapped[2] = swapped[2], swapped[1]
    torch.save(dict(swapped), tmp_path / "x.pt")
    with pytest.raises(ValueError, match="neither a BiSeNet"):
        run(tmp_path / "x.pt", "--output", tmp_path / "y.pth")


def test_a_network_needs_its_input_named(tmp_path):
    """Weights do not tell the input convention."""
    torch.save(reference_network().state_dict(), tmp_path / "x.pth")
    with pytest.raises(ValueError, match="Add --input unit_rgb"):
        run(tmp_path / "x.pth", "--output", tmp_path / "last.pt")


def test_files_that_cannot_be_converted_are_refused(tmp_path):
    """Missing, unknown, misshapen tensors, other classes, other networks; nothing is written."""
    state = reference_network().state_dict()

    def refused(content, message: str) -> None:
        torch.save(content, tmp_path / "x.pth")
        with pytest.raises(ValueError, match=message):
            run(tmp_path / "x.pth", "--input", "unit_rgb", "--output", tmp_path / "last.pt")
        assert not (tmp_path / "last.pt").exists()

    incomplete = {key: value for key, value in state.items() if "convblock2" not in key}
    refused(incomplete, "tensors missing")
    refused(state | {"extra.weight": torch.zeros(1)}, r"1 unknown tensors \['extra.weight'\]")
    refused(state | {"conv.bias": torch.zeros(7)}, "1 of another shape")
    refused(state | {"conv.bias": torch.full((19,), float("nan"))}, "not finite, in 1 tensors")
    refused(reference_network(11).state_dict(), "has 11 classes; 19")
    message = "neither a BiSeNet of the reference implementation nor one of resnet18"
    refused({"encoder.weight": torch.zeros(2)}, message)
    refused({"epoch": 3, "loss": 0.5}, "expected a state dict of tensors")
    refused([1, 2], "expected a state dict of tensors")


def test_damaged_absent_and_own_files_are_refused(tmp_path):
    """Also a checkpoint of this project, which needs no conversion."""
    (tmp_path / "x.pth").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"x.pth cannot be read"):
        run(tmp_path / "x.pth", "--output", tmp_path / "y.pth")
    with pytest.raises(FileNotFoundError, match=r"No file .*absent.pth"):
        run(tmp_path / "absent.pth", "--output", tmp_path / "y.pth")
    with pytest.raises(ValueError, match="a checkpoint of this project already"):
        run(write_checkpoint(tmp_path / "last.pt"), "--output", tmp_path / "y.pth")


def test_an_output_below_a_file_is_refused(tmp_path):
    """The error names the folder."""
    torch.save(reference_network().state_dict(), tmp_path / "x.pth")
    output = tmp_path / "x.pth/last.pt"
    with pytest.raises(OSError, match="Cannot write into"):
        run(tmp_path / "x.pth", "--input", "unit_rgb", "--output", output)


def test_the_input_is_not_overwritten(tmp_path):
    """Neither by a network nor by a backbone."""
    file, backbone = tmp_path / "x.pth", torchvision.models.resnet18(weights=None)
    for state, words in (
        (reference_network().state_dict(), ("--input", "caffe_bgr")),
        (backbone.state_dict(), ()),
    ):
        torch.save(state, file)
        before = file.read_bytes()
        with pytest.raises(OSError, match="it is the input"):
            run(file, *words, "--output", file)
        assert file.read_bytes() == before
    with pytest.raises(OSError, match="it is a folder"):
        run(file, "--output", tmp_path)


def test_a_run_is_not_overwritten(tmp_path):
    """Its last.pt holds a training."""
    torch.save(reference_network().state_dict(), tmp_path / "x.pth")
    run_file = write_checkpoint(tmp_path / "run/last.pt")
    before = run_file.read_bytes()
    with pytest.raises(FileExistsError, match="exists. Choose another --output"):
        run(tmp_path / "x.pth", "--input", "unit_rgb", "--output", run_file)
    assert run_file.read_bytes() == before
