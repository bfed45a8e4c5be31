"""Laws of adversarial adaptation: Eqs. 3-5, who gets which gradient, one pass or two."""

import copy

import pytest
import torch

from model.bisenet import BiSeNet
from model.discriminator import build_discriminator
from model.losses.domain import (
    SOURCE,
    TARGET,
    domain_loss,
    least_squares_domain_loss,
    self_information,
)
from model.losses.segmentation import cross_entropy, segmentation_loss
from model.training_step import split_output
from model.uda.adversarial import AdversarialBalanceMonitor
from scripts.baselines import adversarial_iteration
from tests.helpers.methods import build_method, gradients, make_batch
from tests.helpers.narrow import narrow_backbones
from tests.model.test_bisenet import to_baseline


@pytest.fixture
def batches():
    torch.manual_seed(0)
    source, target = torch.randn(2, 2, 3, 64, 64)
    label = torch.randint(0, 19, (2, 64, 64))
    label[:, :10] = 255
    return make_batch(source, label), make_batch(target)


@pytest.fixture
def model():
    torch.manual_seed(1)
    with narrow_backbones():
        return BiSeNet().train()


def build(model, discriminator=None, **options):
    """The method, its first discriminator replaced by a given one."""
    method = build_method("adversarial", model, **options)
    if discriminator is not None:
        method.discriminators[0] = method.discriminators[0]._replace(network=discriminator)
        method.networks["discriminator"] = discriminator
    return method


def without_labels(batch):
    """The supervised part vanishes: every pixel is ignored."""
    return batch._replace(label=torch.full_like(batch.label, 255))


def relative_difference(found, expected):
    return (found - expected).norm() / expected.norm()


@pytest.mark.parametrize("kind", ["light", "full"])
def test_gradients_equal_the_reference_iteration(batches, kind):
    """All gradients are those of scripts/baselines.py, in float64."""
    source, target = (batch._replace(image=batch.image.double()) for batch in batches)
    torch.manual_seed(1)
    model, discriminator = BiSeNet().double().train(), build_discriminator(kind).double()
    reference = to_baseline(model, "resnet18").train()
    reference_discriminator = copy.deepcopy(discriminator)
    build(model, discriminator, lambda_adv=0.5).step(source, target)

    before = [p.detach().clone() for p in reference.parameters()]
    adversarial_iteration(
        reference,
        reference_discriminator,
        torch.optim.SGD(reference.parameters(), lr=1.0),
        torch.optim.SGD(reference_discriminator.parameters(), lr=1.0),
        source.image,
        source.label,
        target.image,
        lambda_adv=0.5,
    )
    expected = {
        name: old - p.detach()
        for (name, p), old in zip(reference.named_parameters(), before, strict=True)
    }
    found = gradients_by_reference_name(model)
    found, expected = (
        torch.cat([values[name].flatten() for name in sorted(found)])
        for values in (found, expected)
    )
    assert relative_difference(found, expected) < 1e-9
    expected = gradients(reference_discriminator)
    assert relative_difference(gradients(discriminator), expected) < 1e-9


def gradients_by_reference_name(model):
    """Our gradients under the parameter names of the reference network."""
    shadow = copy.deepcopy(model)
    for p, q in zip(shadow.parameters(), model.parameters(), strict=True):
        p.data = q.grad
    named = to_baseline(shadow, "resnet18").named_parameters()
    return {name: p.data for name, p in named if not name.startswith("resnet.fc")}


def test_the_discriminator_learns_from_its_step(model, batches):
    method = build(model)
    first = method.step(*batches)["loss/discriminator"]
    torch.optim.SGD(method.networks["discriminator"].parameters(), lr=0.1).step()
    assert method.step(*batches)["loss/discriminator"] < first


def test_the_adversarial_loss_fools_the_discriminator(model, batches):
    """A step on Eq. 5 alone raises D(target) towards "source" and leaves D as it is."""
    source, target = batches
    method = build(model, lambda_adv=1.0)
    discriminator = method.networks["discriminator"]
    before = copy.deepcopy(discriminator.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def source_probability():
        logits = model(target.image, with_aux=False).logits
        return discriminator(logits.softmax(1)).sigmoid().mean().item()

    losses = method.step(without_labels(source), target)
    assert losses["loss/segmentation"] == 0
    was = source_probability()
    optimizer.step()
    assert source_probability() > was
    assert all(torch.equal(value, discriminator.state_dict()[key]) for key, value in before.items())


def test_eq_3_sends_no_gradient_to_the_model(model, batches):
    source, target = batches
    method = build(model, lambda_adv=1e-30)
    method.step(without_labels(source), target)
    assert gradients(model).abs().max() < 1e-25
    assert gradients(method.networks["discriminator"]).abs().max() > 0


def test_eq_5_sends_no_gradient_to_the_discriminator(model, batches):
    discriminator = build_discriminator("light")
    build(copy.deepcopy(model), discriminator, lambda_adv=1e6).step(*batches)
    with_large_lambda = gradients(discriminator)
    discriminator.zero_grad()
    build(copy.deepcopy(model), discriminator, lambda_adv=1e-6).step(*batches)
    assert torch.equal(with_large_lambda, gradients(discriminator))


def test_source_and_target_pass_separately(model, batches):
    """Batch statistics per domain: the source's loss is what it would be without a target."""
    source, target = batches
    alone = build(copy.deepcopy(model)).step(source, source)["loss/segmentation"]
    shifted = target._replace(image=target.image * 5 + 3)
    found = build(copy.deepcopy(model)).step(source, shifted)["loss/segmentation"]
    assert torch.equal(found, alone)


def test_losses_are_equations_3_to_5(model, batches):
    source, target = batches
    twin, method = copy.deepcopy(model), build(model)
    losses = method.step(source, target)
    discriminator = method.networks["discriminator"]
    source_score, target_score = (
        discriminator(twin(image).logits.softmax(1)) for image in (source.image, target.image)
    )
    torch.testing.assert_close(losses["loss/adversarial"], domain_loss(target_score, SOURCE))
    expected = 0.5 * -(source_score.sigmoid().log().mean()) + 0.5 * -(
        (1 - target_score.sigmoid()).log().mean()
    )
    torch.testing.assert_close(losses["loss/discriminator"], expected)
    torch.testing.assert_close(
        losses["discriminator_accuracy/source"], (source_score > 0).float().mean()
    )


def test_joint_batches_pass_once(model, batches):
    """BatchNorm normalizes both domains together."""
    source, target = batches
    twin = copy.deepcopy(model)
    losses = build(model, joint_batch_norm=True).step(source, target)
    output = twin.low_resolution(torch.cat([source.image, target.image]))
    expected = sum(cross_entropy(each[:2], source.label) for each in (output.logits, *output.aux))
    torch.testing.assert_close(losses["loss/segmentation"], expected.detach())
    assert int(model.spatial_path[0][1].num_batches_tracked) == 1


def test_joint_equals_separate_with_frozen_batch_norm(model, batches):
    model.frozen_batch_norm = True
    model.train()
    found, networks = [], []
    discriminator = build_discriminator("light")
    for is_joint in (False, True):
        pair = copy.deepcopy(model), copy.deepcopy(discriminator)
        found.append(build(*pair, lambda_adv=0.5, joint_batch_norm=is_joint).step(*batches))
        networks.append(pair)
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value)
    for separate, joint in zip(*networks, strict=True):
        assert relative_difference(gradients(joint), gradients(separate)) < 1e-4


@pytest.mark.parametrize("is_joint", [False, True])
def test_a_second_discriminator_sees_the_auxiliary_output(model, batches, is_joint):
    """All gradients are those of the sum of all losses, written down plainly."""
    source, target = (batch._replace(image=batch.image.double()) for batch in batches)
    model = model.double()
    method = build(
        model,
        build_discriminator("light").double(),
        lambda_adv=0.5,
        lambda_adv_aux=0.2,
        joint_batch_norm=is_joint,
    )
    method.discriminators[1].network.double()
    networks = [each.network for each in method.discriminators]
    twin, *twins = (copy.deepcopy(network) for network in (model, *networks))
    losses = method.step(source, target)

    if is_joint:
        on_source, on_target = split_output(twin(torch.cat([source.image, target.image])), 2)
    else:
        on_source, on_target = twin(source.image), twin(target.image)
    total = segmentation_loss(on_source, source.label)
    outputs = (
        (twins[0], on_source.logits, on_target.logits, 0.5),
        (twins[1], on_source.aux[0], on_target.aux[0], 0.2),
    )
    for network, source_logits, target_logits, weight in outputs:
        frozen = copy.deepcopy(network).requires_grad_(False)
        adversarial = domain_loss(frozen(target_logits.softmax(1)), SOURCE)
        d_loss = domain_loss(network(source_logits.softmax(1).detach()), SOURCE)
        d_loss = d_loss + domain_loss(network(target_logits.softmax(1).detach()), TARGET)
        total = total + weight * adversarial + d_loss / 2
    total.backward()
    for found, expected in zip((model, *networks), (twin, *twins), strict=True):
        assert relative_difference(gradients(found), gradients(expected)) < 1e-9
    torch.testing.assert_close(losses["loss/adversarial_aux16"], adversarial.detach())


def test_least_squares_on_entropy_maps(model, batches):
    """LSGAN's loss and threshold, AdvEnt's input."""
    source, target = batches
    twin = copy.deepcopy(model)
    method = build(model, adversarial_loss="lsgan", discriminator_input="entropy")
    losses, discriminator = method.step(source, target), method.networks["discriminator"]
    source_score, target_score = (
        discriminator(self_information(twin(image).logits.softmax(1)))
        for image in (source.image, target.image)
    )
    expected = least_squares_domain_loss(target_score, SOURCE).detach()
    torch.testing.assert_close(losses["loss/adversarial"], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        losses["discriminator_accuracy/source"], (source_score > 0.5).float().mean()
    )


def test_every_discriminator_is_watched(model):
    """A warning names the output whose discriminator is out of balance."""
    method = build(model, lambda_adv_aux=0.2)
    values = {"discriminator_accuracy/source": 0.7, "discriminator_accuracy/target": 0.7}
    values |= {"discriminator_accuracy/source_aux16": 1.0}
    values |= {"discriminator_accuracy/target_aux16": 1.0}
    assert method.warnings(20, values) == []
    (warning,) = method.warnings(1020, values)
    assert "discriminator of the output aux16 has been right on both domains" in warning
    assert method.warnings(3000, values) == []  # said once


class TestDiscriminatorWatch:
    def warnings(self, accuracies):
        watch = AdversarialBalanceMonitor(patience=100)
        found = []
        for number, (source, target) in enumerate(accuracies):
            found += watch(
                number * 20,
                {"discriminator_accuracy/source": source, "discriminator_accuracy/target": target},
            )
        return found

    def test_chance_is_said_once(self):
        (warning,) = self.warnings([(0.8, 0.7)] + [(0.95, 0.04)] * 20)
        assert warning.startswith("WARNING: the discriminator has been at chance since step 20")

    def test_victory_is_said_once(self):
        (warning,) = self.warnings([(0.999, 0.99)] * 20)
        assert "right on both domains since step 0" in warning

    def test_a_run_in_parts_warns_like_a_whole_one(self):
        """Its state counts the steps of all parts, and knows what was said."""
        whole, found = AdversarialBalanceMonitor(patience=100), []
        parts = AdversarialBalanceMonitor(patience=100)
        values = {f"discriminator_accuracy/{domain}": 0.5 for domain in ("source", "target")}
        for step in range(0, 400, 40):
            resumed = AdversarialBalanceMonitor(patience=100)
            resumed.load_state_dict(parts.state_dict())
            parts = resumed
            found.append((whole(step, values), parts(step, values)))
        assert all(one == other for one, other in found)
        assert sum(len(one) for one, _ in found) == 1

    def test_a_game_that_moves_gives_no_warning(self):
        assert self.warnings([(0.5, 0.5), (0.9, 0.8), (0.99, 0.99), (0.7, 0.7)] * 10) == []
