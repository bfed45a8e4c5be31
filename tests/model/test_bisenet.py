"""BiSeNet against the baseline network, its sizes, and its cost."""

import pytest
import torch
from torch import nn

from model.bisenet import BiSeNet, SegmentationOutput
from model.discriminator import build_discriminator
from model.inference import cost
from model.inference.cost import count_parameters
from scripts.baselines import BaselineBiSeNet

AUX = ("aux16", "aux32")


def to_baseline(model: BiSeNet, backbone: str) -> BaselineBiSeNet:
    """Baseline network with the weights of ``model``."""
    names = {
        "spatial_path.": "spatial.",
        "context_path.backbone.": "resnet.",
        "context_path.arm16.": "attention16.",
        "context_path.arm32.": "attention32.",
        "fusion.fuse.": "fuse.",
        "fusion.conv1.": "fuse1.",
        "fusion.conv2.": "fuse2.",
    }
    state = {}
    for key, value in model.state_dict().items():
        prefix = next((prefix for prefix in names if key.startswith(prefix)), "")
        state[names.get(prefix, "") + key[len(prefix) :]] = value
    baseline = BaselineBiSeNet(backbone=backbone).double()
    missing, unexpected = baseline.load_state_dict(state, strict=False)
    assert set(missing) == {"resnet.fc.weight", "resnet.fc.bias"}
    assert not unexpected
    return baseline


def randomize_batch_norms(model: nn.Module) -> None:
    """Sets BatchNorm weights and statistics as in a trained network, far from the identity."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)


@pytest.mark.parametrize(
    ("backbone", "training", "inference"),
    [
        ("resnet18", 12_068_672, 12_054_042),
        ("resnet34", 22_176_832, 22_162_202),
        ("resnet50", 29_760_064, 29_701_658),
        ("resnet101", 48_752_192, 48_693_786),
        ("mobilenet_v2", 2_419_872, 2_411_930),
    ],
)
def test_parameter_counts(backbone, training, inference):
    """In training, and in inference without the auxiliary heads."""
    model = BiSeNet(19, backbone)
    assert count_parameters(model) == training
    assert training - sum(count_parameters(getattr(model, name)) for name in AUX) == inference


def convolution_macs(model: nn.Module, size: tuple[int, int]) -> int:
    """Counts during a forward pass; independent of model/inference/cost.py."""
    macs = 0

    def count(module, _inputs, output):
        nonlocal macs
        macs += output.shape[2:].numel() * module.weight.numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        model.to("meta").eval()(torch.empty(1, 3, *size, device="meta"))  # shapes suffice
    return macs


@pytest.mark.parametrize(("backbone", "gmac"), [("resnet18", 25.63), ("resnet101", 91.41)])
def test_convolution_macs(backbone, gmac):
    """Those of the paper, less the head that moved to stride 8."""
    baseline = convolution_macs(BaselineBiSeNet(backbone=backbone), (512, 1024)) / 1e9
    assert baseline == pytest.approx(gmac, abs=0.005)
    head_moved_to_stride_8 = 19 * 19 * 512 * 1024 * (1 - 1 / 64) / 1e9
    macs = convolution_macs(BiSeNet(19, backbone), (512, 1024))
    assert macs / 1e9 == pytest.approx(baseline - head_moved_to_stride_8, abs=1e-9)


@pytest.mark.parametrize(
    ("backbone", "gmac"), [("resnet34", 44.77), ("resnet50", 52.43), ("mobilenet_v2", 8.92)]
)
def test_macs_of_other_backbones(backbone, gmac):
    """Pinned: 19 classes, 512x1024, counted as above and in closed form (model/inference/cost)."""
    model = BiSeNet(19, backbone)
    closed_form = cost.convolution_macs(model, (3, 512, 1024)) / 1e9
    assert closed_form == pytest.approx(gmac, abs=0.005)
    assert convolution_macs(model, (512, 1024)) / 1e9 == pytest.approx(closed_form, abs=1e-9)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet101"])
def test_logits_equal_the_baseline(backbone):
    """Main and auxiliary logits in training, main logits in evaluation."""
    torch.manual_seed(0)
    model = BiSeNet(19, backbone).double()
    randomize_batch_norms(model)
    baseline = to_baseline(model, backbone)
    image = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    for mode in (True, False):
        output, expected = model.train(mode)(image), baseline.train(mode)(image)
        expected = expected if mode else (expected,)
        found = (output.logits, *output.aux)
        assert len(found) == len(expected) == (3 if mode else 1)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [(32, 32), (33, 65), (97, 201), (100, 180)])
def test_logits_have_the_size_of_the_image(size):
    """Also for odd sizes; auxiliary logits in training only."""
    model, image = BiSeNet(19, "resnet18"), torch.randn(2, 3, *size)
    output = model.train()(image)
    assert isinstance(output, SegmentationOutput)
    assert [tuple(x.shape) for x in (output.logits, *output.aux)] == [(2, 19, *size)] * 3
    output = model.eval()(image[:1])
    assert output.logits.shape == (1, 19, *size)
    assert output.aux == ()


def test_auxiliary_logits_can_be_skipped():
    """with_aux=False leaves the main logits unchanged."""
    torch.manual_seed(0)
    model, image = BiSeNet().train(), torch.randn(2, 3, 64, 64)
    with_aux, without = model(image), model(image, with_aux=False)
    assert without.aux == ()
    torch.testing.assert_close(without.logits, with_aux.logits)


def test_initialization_outside_the_backbone():
    """Kaiming normal (fan_in) for convolutions, 1 for BatchNorm weights."""
    torch.manual_seed(0)
    model = BiSeNet()
    weight = model.fusion.fuse[0].weight
    assert weight.std().item() == pytest.approx((2 / (1024 * 9)) ** 0.5, rel=0.02)
    assert (model.fusion.fuse[1].weight == 1).all()


def test_batch_of_one_and_small_images_are_refused():
    """Errors tell the smallest batch and image."""
    model = BiSeNet()
    with pytest.raises(ValueError, match="at least 2 images"):
        model.train()(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match="at least 32"):
        model.eval()(torch.zeros(1, 3, 31, 64))


def test_the_discriminator_takes_the_softmax_output():
    """Domain logits have the size of the image."""
    probabilities = BiSeNet().eval()(torch.zeros(1, 3, 50, 70)).logits.softmax(1)
    assert build_discriminator("light")(probabilities).shape == (1, 1, 50, 70)


def test_a_wider_fusion_is_recorded():
    """`architecture` rebuilds the network; the default has num_classes channels."""
    wide = BiSeNet(fusion_channels=64)
    assert wide.architecture == {"num_classes": 19, "backbone": "resnet18", "fusion_channels": 64}
    assert "fusion_channels" not in BiSeNet().architecture
    assert wide.fusion.fuse[0].weight.shape == (64, 1024, 3, 3)
    assert wide.head.weight.shape == (19, 64, 1, 1)
    logits = BiSeNet(**wide.architecture).eval()(torch.zeros(1, 3, 33, 47)).logits
    assert logits.shape == (1, 19, 33, 47)
