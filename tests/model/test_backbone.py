"""Backbone weights: files, ImageNet, errors."""

import argparse
import urllib.error

import pytest
import torch
import torchvision

from model import backbone as module
from model.bisenet import BiSeNet
from utils.options.groups import add_network_arguments


def test_a_file_of_weights_is_loaded(tmp_path):
    """--backbone-weights FILE: all tensors of the backbone are those of the file."""
    donor = torchvision.models.resnet18(weights=None)
    torch.save(donor.state_dict(), tmp_path / "resnet18.pth")
    model = BiSeNet(19, "resnet18", str(tmp_path / "resnet18.pth"))
    state = model.context_path.backbone.state_dict()
    assert state
    for key, value in state.items():
        assert torch.equal(value, donor.state_dict()[key]), key


def test_imagenet_weights_come_from_torchvision(monkeypatch):
    """Only those of the chosen backbone are requested."""
    requested = []

    def fake(self, **_):
        requested.append(self)
        return torchvision.models.resnet18(weights=None).state_dict()

    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", fake)
    BiSeNet(19, "resnet18", "imagenet")
    assert requested == [torchvision.models.ResNet18_Weights.IMAGENET1K_V1]


def test_offline_imagenet_names_the_remedy(monkeypatch):
    """The error tells how to continue without a download."""

    def offline(self, **_):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", offline)
    with pytest.raises(ConnectionError, match="--backbone-weights none"):
        BiSeNet(19, "resnet18", "imagenet")


def test_wrong_files_are_refused(tmp_path):
    """Absent and damaged files, files without state dict, and other networks."""
    with pytest.raises(FileNotFoundError, match="No backbone weights"):
        BiSeNet(19, "resnet18", str(tmp_path / "absent.pth"))
    (tmp_path / "text.pth").write_text("<html>")
    with pytest.raises(ValueError, match="is damaged, or holds more than tensors") as error:
        BiSeNet(19, "resnet18", str(tmp_path / "text.pth"))
    assert "weights_only" not in str(error.value)  # torch's advice would run any code
    torch.save({"a": 1}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="no state dict"):
        BiSeNet(19, "resnet18", str(tmp_path / "other.pth"))
    torch.save(torchvision.models.resnet34(weights=None).state_dict(), tmp_path / "resnet34.pth")
    with pytest.raises(ValueError, match=r"found .* resnet34, expected .* resnet18\. Add"):
        BiSeNet(19, "resnet18", str(tmp_path / "resnet34.pth"))
    state = torchvision.models.resnet18(weights=None).state_dict()
    del state["layer4.1.bn2.weight"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(ValueError, match=r"do not fit .*1 tensors missing \['layer4.1.bn2"):
        BiSeNet(19, "resnet18", str(tmp_path / "part.pth"))


def test_weights_that_are_not_finite_are_refused(tmp_path):
    """They would train to nothing; the message of a loss that is not finite blames --lr."""
    state = torchvision.models.resnet18(weights=None).state_dict()
    state["layer1.0.bn1.running_var"][3] = float("nan")
    torch.save(state, tmp_path / "resnet18.pth")
    with pytest.raises(ValueError, match=r"resnet18\.pth.*not finite.*layer1\.0\.bn1\.running_var"):
        BiSeNet(19, "resnet18", str(tmp_path / "resnet18.pth"))


def test_unknown_backbone_is_refused():
    """The error lists the backbones."""
    with pytest.raises(ValueError, match="resnet18, resnet34, resnet50, resnet101, mobilenet_v2"):
        module.build_backbone("vgg16", None)


@pytest.mark.parametrize("name", module.BACKBONES)
def test_strides_and_widths_of_the_features(name):
    """feat16 and feat32 have strides 16 and 32, rounded up, and the widths that it names."""
    with torch.device("meta"):
        backbone = module.build_backbone(name, None)
        feat16, feat32 = backbone.eval()(torch.empty(1, 3, 65, 130))
    assert feat16.shape == (1, backbone.channels16, 5, 9)
    assert feat32.shape == (1, backbone.channels32, 3, 5)


@pytest.mark.parametrize("name", ["resnet34", "resnet50", "mobilenet_v2"])
def test_features_are_torchvisions(name, tmp_path):
    """The file of torchvision's whole classifier; its own layers give the same feature maps."""
    donor = getattr(torchvision.models, name)(weights=None).eval()
    torch.save(donor.state_dict(), tmp_path / "weights.pth")
    backbone = module.build_backbone(name, str(tmp_path / "weights.pth"))
    layers = {"mobilenet_v2": ("features.13", "features.17")}.get(name, ("layer3", "layer4"))
    expected = []
    for layer in layers:
        donor.get_submodule(layer).register_forward_hook(
            lambda _module, _inputs, output: expected.append(output)
        )
    with torch.no_grad():
        donor(torch.ones(1, 3, 32, 64))
        found = backbone.eval()(torch.ones(1, 3, 32, 64))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_flag_offers_every_backbone():
    """--backbone of the training scripts has the names that model/ builds."""
    parser = argparse.ArgumentParser()
    add_network_arguments(parser)
    (action,) = [a for a in parser._actions if a.dest == "backbone"]
    assert tuple(action.choices) == module.BACKBONES


@pytest.mark.parametrize("content", ["<html>Please log in</html>", "", b"PK\x03\x04", "cut"])
def test_a_damaged_cached_file_is_named(content, tmp_path, monkeypatch):
    """A web page, or a download that was cut short, in the place of the ImageNet weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub/checkpoints/resnet18-f37072fd.pth"
    file.parent.mkdir(parents=True)
    if content == "cut":
        torch.save(torchvision.models.resnet18(weights=None).state_dict(), file)
        content = file.read_bytes()[:100_000]
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=r"resnet18-f37072fd\.pth is there, but damaged") as found:
        BiSeNet(19, "resnet18", "imagenet")
    assert "Delete it" in str(found.value)
    assert "\n" not in str(found.value)


def test_cached_weights_cannot_run_code(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub/checkpoints/resnet18-f37072fd.pth"
    file.parent.mkdir(parents=True)
    torch.save({"a": Touch(tmp_path / "ran")}, file)
    with pytest.raises(ValueError, match="damaged"):
        BiSeNet(19, "resnet18", "imagenet")
    assert not (tmp_path / "ran").exists()


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return self.path.touch, ()


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(28, "Full")])
def test_an_unwritable_cache_names_the_remedy(error, monkeypatch):
    """TORCH_HOME, or a file of one's own."""

    def refuse(self, **_):
        raise error

    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", refuse)
    with pytest.raises(OSError, match=r"resnet18-f37072fd\.pth .*TORCH_HOME.*--backbone-weights"):
        BiSeNet(19, "resnet18", "imagenet")
