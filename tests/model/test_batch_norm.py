import copy

import pytest
import torch
from torch import nn

from model.batch_norm import with_batch_norm
from model.bisenet import BiSeNet
from model.uda.adabn import recalibrate
from tests.helpers.networks import trained_like_network

CPU = torch.device("cpu")


def statistics(model):
    return {name: value.clone() for name, value in model.named_buffers()}


def test_frozen_statistics_are_used_and_never_move_while_weights_learn():
    torch.manual_seed(0)
    model = BiSeNet().train()
    for _ in range(2):
        model(torch.randn(2, 3, 64, 64) + 1)  # statistics worth freezing
    model = with_batch_norm(model, "frozen", CPU)
    before = statistics(model)
    image = torch.randn(2, 3, 64, 64)
    for mode in (True, False, True):  # as a validation in between does
        model.train(mode)
    output = model(image)
    assert len(output.aux) == 2  # it trains
    output.logits.mean().backward()
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert model.context_path.arm16.bn.weight.grad.abs().max() > 0
    torch.testing.assert_close(output.logits, copy.deepcopy(model).eval()(image).logits)


def test_frozen_takes_a_batch_of_one_and_local_does_not():
    image = torch.randn(1, 3, 64, 64)
    assert with_batch_norm(BiSeNet().train(), "frozen", CPU)(image).logits.shape == (1, 19, 64, 64)
    with pytest.raises(ValueError, match="at least 2 images"):
        with_batch_norm(BiSeNet().train(), "local", CPU)(image)


def test_local_moves_its_statistics():
    model = with_batch_norm(BiSeNet().train(), "local", CPU)
    before = statistics(model)
    model(torch.randn(2, 3, 64, 64))
    assert not any(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_sync_needs_cuda():
    with pytest.raises(ValueError, match="--bn sync needs CUDA"):
        with_batch_norm(BiSeNet(), "sync", CPU)


def test_sync_keeps_the_names_of_the_state():
    model = BiSeNet()
    assert (
        with_batch_norm(copy.deepcopy(model), "sync", torch.device("cuda")).state_dict().keys()
        == model.state_dict().keys()
    )


class TestRecalibration:
    """AdaBN: running statistics of other images, and nothing else."""

    @staticmethod
    def small_network():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 4, 3),
            nn.BatchNorm2d(4),
        ).eval()

    @pytest.mark.parametrize("sizes", [(12,), (2, 10), (4, 4, 4), (1, 5, 6)])
    def test_the_first_statistics_are_those_of_all_pixels_however_they_are_batched(self, sizes):
        model = self.small_network()
        images = torch.randn(12, 3, 20, 30) * torch.rand(12, 3, 1, 1) + 5 * torch.randn(
            12, 3, 1, 1
        )  # no two images alike
        assert recalibrate(model, images.split(sizes)) == 12
        values = model[0](images).transpose(0, 1).flatten(1)  # (6, n)
        torch.testing.assert_close(model[1].running_mean, values.mean(1), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model[1].running_var, values.var(1), rtol=1e-5, atol=1e-5)

    def test_images_of_different_sizes_count_by_their_pixels(self):
        model, batches = (
            self.small_network(),
            [
                torch.randn(2, 3, 8, 8),
                torch.randn(3, 3, 40, 20) + 4,
            ],
        )
        recalibrate(model, batches)
        values = torch.cat([model[0](batch).transpose(0, 1).flatten(1) for batch in batches], 1)
        torch.testing.assert_close(model[1].running_mean, values.mean(1), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model[1].running_var, values.var(1), rtol=1e-5, atol=1e-5)

    def test_on_data_of_constant_statistics_the_network_normalizes_in_use_exactly_as_in_training(
        self,
    ):
        model, batch, counts = trained_like_network(), torch.randn(4, 3, 64, 96), {}
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.register_forward_pre_hook(
                lambda module, inputs: counts.update(
                    {module: inputs[0].numel() // inputs[0].shape[1]}
                )
            )
        trained = copy.deepcopy(model).train()(batch, with_aux=False).logits
        recalibrate(model, [batch] * 5)
        for (
            norm
        ) in norms:  # the running variance is unbiased, the one that training divides by is not
            norm.running_var *= 1 - 1 / (5 * counts[norm])
        torch.testing.assert_close(model(batch).logits, trained, rtol=1e-3, atol=1e-3)

    def test_weights_modes_and_the_rest_of_the_state_stay(self):
        model = trained_like_network().train()
        model.aux16.eval()
        modes = {name: module.training for name, module in model.named_modules()}
        before = copy.deepcopy(model.state_dict())
        recalibrate(model, [torch.randn(2, 3, 64, 64) + 1, torch.randn(2, 3, 64, 64)])
        changed = {
            name
            for name, value in model.state_dict().items()
            if not torch.equal(value, before[name])
        }
        assert changed == {
            name for name in before if name.endswith(("running_mean", "running_var"))
        }
        assert {name: module.training for name, module in model.named_modules()} == modes
        assert not any(module._forward_pre_hooks for module in model.modules())
        assert all(
            module.track_running_stats
            for module in model.modules()
            if isinstance(module, nn.BatchNorm2d)
        )

    def test_on_images_like_those_of_the_training_little_changes_and_on_others_much(self):
        model = (
            trained_like_network()
        )  # its running statistics are those of standard normal noise on a random grey
        rng = torch.Generator().manual_seed(5)
        images = torch.randn(64, 3, 64, 96, generator=rng) + torch.randn(64, 3, 1, 1, generator=rng)
        before = model(images[:8]).logits

        def change(batches):
            other = copy.deepcopy(model)
            recalibrate(other, batches)
            return (other(images[:8]).logits - before).abs().mean() / before.abs().mean()

        assert change(images.split(8)) < 0.35 * change((0.3 * images + 2).split(8))

    def test_a_change_of_contrast_is_undone(self):
        """A network that is given darker images answers as it did on the bright ones, once it is
        recalibrated on the dark.
        """
        model, images = self.small_network(), torch.randn(8, 3, 20, 30)
        model[0].bias.data.zero_()  # it would not scale with the image
        recalibrate(model, [images])
        expected, darker = model(images), 0.25 * images
        assert (model(darker) - expected).abs().mean() > 0.1
        recalibrate(model, [darker])
        torch.testing.assert_close(model(darker), expected, rtol=1e-3, atol=1e-3)

    def test_frozen_statistics_are_recalibrated_too_and_stay_frozen(self):
        model = with_batch_norm(trained_like_network(), "frozen", CPU).train()
        plain = trained_like_network()
        batches = torch.randn(4, 3, 64, 64).split(2)
        recalibrate(model, batches)
        recalibrate(plain, batches)
        assert all(
            torch.equal(value, plain.state_dict()[name])
            for name, value in model.state_dict().items()
        )
        assert not any(
            module.training for module in model.modules() if isinstance(module, nn.BatchNorm2d)
        )
        before = statistics(model)
        model(torch.randn(2, 3, 64, 64))
        assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())

    def test_nothing_changes_where_it_fails(self):
        model = trained_like_network()
        before = copy.deepcopy(model.state_dict())
        for batches, error, text in (
            ([], ValueError, "No batch"),
            ([torch.full((2, 3, 64, 64), float("inf"))], FloatingPointError, "not finite"),
            (
                [torch.randn(2, 3, 64, 64), torch.randn(1, 3, 64, 64)],
                ValueError,
                "at least 2 images",
            ),
        ):
            with pytest.raises(error, match=text):
                recalibrate(model, batches)
            assert all(
                torch.equal(value, before[name]) for name, value in model.state_dict().items()
            )
            assert not any(module.training for module in model.modules())
        with pytest.raises(ValueError, match="no BatchNorm"):
            recalibrate(nn.Conv2d(3, 3, 1), [torch.randn(2, 3, 8, 8)])
