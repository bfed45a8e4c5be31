"""On CUDA: no operation mixes devices, and no step waits for the GPU (seen on a CPU)."""

import pytest
import torch

from model.bisenet import BiSeNet
from model.inference.predictor import Predictor, load_predictor
from model.inference.sampled_pixels import sampled_probabilities
from model.inference.tta import TTA_PRESETS
from model.preprocessing import INPUT_CONVENTIONS
from model.uda.adabn import recalibrate_on
from model.uda.class_balanced_threshold import ConfidenceHistogram, confidence_bins
from model.uda.collapse_monitor import CollapseMonitor
from scripts.benchmark.methods import METHODS, training_step
from tests.helpers.pretended_cuda import CUDA, PretendedCuda
from utils.evaluation.metrics import confusion_matrix
from utils.training.precision import autocast_for

pytestmark = pytest.mark.usefixtures("narrow_networks")
NORMALIZE = INPUT_CONVENTIONS["imagenet"]


@pytest.mark.parametrize(
    "misuse",
    [
        lambda tensor: tensor + torch.ones(2),
        lambda tensor: torch.stack([tensor[0], torch.ones(())]),
        lambda tensor: tensor.numpy(),
    ],
)
def test_mixed_devices_are_found(misuse):
    """The law below can fail."""
    with PretendedCuda(), pytest.raises((RuntimeError, TypeError), match=r"device|numpy"):
        misuse(torch.ones(2, device="cuda"))


def test_waits_are_found():
    """The law below can fail."""
    with PretendedCuda() as seen:
        tensor = torch.ones(2).to("cuda", non_blocking=True)
        assert (tensor * 2).is_cuda
        assert not seen.waits
        assert tensor[tensor > 0].sum().item() == 2
        assert [wait.split()[0] for wait in seen.waits] == ["index", "item"]
        assert not tensor.cpu().is_cuda
        assert len(seen.waits) == 3


@pytest.mark.parametrize("name", METHODS)
def test_a_step_stays_on_its_device_and_never_waits(name):
    """Every method, from the second step on: the first one copies constants."""
    with PretendedCuda() as seen:
        step = training_step("resnet18", (2, 64, 64), CUDA, "fp32", METHODS[name])
        step()
        seen.waits.clear()
        step()
        assert seen.waits == []


def test_the_collapse_monitor_stays_and_never_waits():
    """Until its values are read."""
    with PretendedCuda() as seen:
        monitor = CollapseMonitor(["road", "sky"], 1, 2, CUDA)
        logits = torch.randn(2, 2, 8, 8, device="cuda")
        valid = torch.ones(2, 64, 64, dtype=torch.bool, device="cuda")
        for done in range(1, 6):
            monitor.add_logits(logits, valid)
            monitor.after_step(done)
        assert seen.waits == []
        assert set(monitor.scalars()) >= {"target_share/road", "target_share/sky"}
        assert monitor.warnings() == []


@pytest.mark.parametrize("views", [(), TTA_PRESETS["flip"]], ids=["plain", "flip"])
def test_predictions_stay_on_their_device(views):
    """Class maps, scores, thresholds of pseudo-labels, samples of pixels, statistics."""
    network = BiSeNet().eval()
    content = {"name": "x", "architecture": network.architecture, "input": NORMALIZE.as_dict()}
    content |= {"parts": {"model": network.state_dict()}}
    images = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    label = torch.randint(0, 19, (2, 64, 96), dtype=torch.uint8)
    with PretendedCuda():
        predictor = load_predictor(content, 19, CUDA, views=views)
        classes = predictor(images)
        assert classes.is_cuda
        assert confusion_matrix(label.to("cuda"), classes).sum() == label.numel()
        histogram = ConfidenceHistogram(19)
        histogram.add(*confidence_bins(predictor.class_scores(images).softmax(1)))
        assert histogram.counts.sum() == label.numel()
        assert predictor.segment(images[0].numpy()).shape == (64, 96)
        points = torch.rand(5, 2, dtype=torch.float64)
        found = sampled_probabilities(predictor, images, points, TTA_PRESETS["flip"])
        assert found.is_cuda
        network.to("cuda")
        recalibrate_on(network, NORMALIZE, [images], autocast_for(CUDA, "fp32"))
        assert Predictor(network, NORMALIZE, CUDA)(images).is_cuda
