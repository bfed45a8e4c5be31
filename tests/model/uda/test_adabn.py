"""AdaBN: running statistics of other images, and nothing else."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from model.batch_norm import with_batch_norm
from model.preprocessing import INPUT_CONVENTIONS
from model.uda.adabn import recalibrate, recalibrate_on
from tests.helpers.networks import trained_like_network

pytestmark = pytest.mark.usefixtures("narrow_networks")

CPU = torch.device("cpu")


def small_network():
    """Two convolutions with BatchNorm, in evaluation mode."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3),
        nn.BatchNorm2d(4),
    ).eval()


@pytest.mark.parametrize("sizes", [(12,), (2, 10), (4, 4, 4), (1, 5, 6)])
def test_first_statistics_do_not_depend_on_batches(sizes):
    """The first BatchNorm has mean and unbiased variance over all pixels of all images."""
    model = small_network()
    contrast, brightness = torch.rand(12, 3, 1, 1), torch.randn(12, 3, 1, 1)
    images = torch.randn(12, 3, 20, 30) * contrast + 5 * brightness
    assert recalibrate(model, images.split(sizes)) == 12
    values = model[0](images).transpose(0, 1).flatten(1)  # (6, n)
    torch.testing.assert_close(model[1].running_mean, values.mean(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model[1].running_var, values.var(1), rtol=1e-5, atol=1e-5)


def test_images_count_by_their_pixels():
    """Batches may have different sizes."""
    model = small_network()
    batches = [torch.randn(2, 3, 8, 8), torch.randn(3, 3, 40, 20) + 4]
    recalibrate(model, batches)
    values = torch.cat([model[0](batch).transpose(0, 1).flatten(1) for batch in batches], 1)
    torch.testing.assert_close(model[1].running_mean, values.mean(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model[1].running_var, values.var(1), rtol=1e-5, atol=1e-5)


def test_equal_batches_normalize_as_in_training():
    """On equal batches evaluation gives the logits of training, up to the unbiased variance."""
    model, batch, counts = trained_like_network(), torch.randn(4, 3, 64, 96), {}

    def count(module: nn.Module, inputs: tuple) -> None:
        counts[module] = inputs[0].numel() // inputs[0].shape[1]

    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.register_forward_pre_hook(count)
    trained = copy.deepcopy(model).train()(batch, with_aux=False).logits
    recalibrate(model, [batch] * 5)
    for norm in norms:  # training divides by the biased variance
        norm.running_var *= 1 - 1 / (5 * counts[norm])
    torch.testing.assert_close(model(batch).logits, trained, rtol=1e-3, atol=1e-3)


def test_only_running_statistics_change():
    """Weights, modes and hooks of the network stay."""
    model = trained_like_network().train()
    model.aux16.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    before = copy.deepcopy(model.state_dict())
    recalibrate(model, [torch.randn(2, 3, 64, 64) + 1, torch.randn(2, 3, 64, 64)])
    changed = {
        name for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {name for name in before if name.endswith(("running_mean", "running_var"))}
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert not any(module._forward_pre_hooks for module in model.modules())
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(norm.track_running_stats for norm in norms)


def test_images_like_the_training_images_change_little():
    """Other images change the logits almost three times as much, or more."""
    model = trained_like_network()  # statistics of standard normal noise on a random grey
    rng = torch.Generator().manual_seed(5)
    images = torch.randn(64, 3, 64, 96, generator=rng) + torch.randn(64, 3, 1, 1, generator=rng)
    before = model(images[:8]).logits

    def change(batches):
        other = copy.deepcopy(model)
        recalibrate(other, batches)
        return (other(images[:8]).logits - before).abs().mean() / before.abs().mean()

    assert change(images.split(8)) < 0.35 * change((0.3 * images + 2).split(8))


def test_a_change_of_contrast_is_undone():
    """Recalibrated on darker images, the network gives its outputs for the bright ones."""
    model, images = small_network(), torch.randn(8, 3, 20, 30)
    model[0].bias.data.zero_()  # it would not scale with the image
    recalibrate(model, [images])
    expected, darker = model(images), 0.25 * images
    assert (model(darker) - expected).abs().mean() > 0.1
    recalibrate(model, [darker])
    torch.testing.assert_close(model(darker), expected, rtol=1e-3, atol=1e-3)


def test_frozen_statistics_are_recalibrated_too():
    """They stay frozen afterwards."""
    model = with_batch_norm(trained_like_network(), "frozen", CPU).train()
    plain = trained_like_network()
    batches = torch.randn(4, 3, 64, 64).split(2)
    recalibrate(model, batches)
    recalibrate(plain, batches)
    expected = plain.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert not any(norm.training for norm in norms)
    before = {name: value.clone() for name, value in model.named_buffers()}
    model(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_images_are_normalized_as_the_network_has_it():
    """uint8 images give the statistics of what the network sees of them."""
    images = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    for normalize in INPUT_CONVENTIONS.values():
        model, expected = trained_like_network(), trained_like_network()
        recalibrate_on(model, normalize, images.split(2), nullcontext)
        recalibrate(expected, map(normalize, images.split(2)))
        state = expected.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_failure_changes_nothing():
    """No batch, statistics that are not finite, a batch of one, no BatchNorm."""
    model = trained_like_network()
    before = copy.deepcopy(model.state_dict())
    for batches, error, text in (
        ([], ValueError, "No batch"),
        ([torch.full((2, 3, 64, 64), float("inf"))], FloatingPointError, "not finite"),
        ([torch.randn(2, 3, 64, 64), torch.randn(1, 3, 64, 64)], ValueError, "at least 2 images"),
    ):
        with pytest.raises(error, match=text):
            recalibrate(model, batches)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert not any(module.training for module in model.modules())
    with pytest.raises(ValueError, match="no BatchNorm"):
        recalibrate(nn.Conv2d(3, 3, 1), [torch.randn(2, 3, 8, 8)])
