import contextlib
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
from model.uda.adversarial import (
    Computation,
    Opponent,
    adversarial_step,
    entropy_step,
    game,
    joint_adversarial_step,
    pseudo_label_step,
    split_output,
)
from scripts.baselines import adversarial_iteration
from tests.model.test_bisenet import to_baseline

PLAIN = Computation(contextlib.nullcontext, torch.amp.GradScaler("cpu", enabled=False))


@pytest.fixture
def setting():
    torch.manual_seed(0)
    model, discriminator = BiSeNet().train(), build_discriminator("light").train()
    source, target = torch.randn(2, 2, 3, 64, 64)
    label = torch.randint(0, 19, (2, 64, 64))
    label[:, :10] = 255
    return model, discriminator, source, label, target


def step(model, discriminator, source, label, target, lambda_adv=0.01):
    return adversarial_step(
        model, [Opponent(discriminator, lambda_adv)], source, label, target, PLAIN
    )


def gradients(network):
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


@pytest.mark.parametrize("kind", ["light", "full"])
def test_gradients_equal_the_published_iteration(setting, kind):
    model, _, source, label, target = setting
    discriminator = build_discriminator(kind).double()
    model = model.double()
    baseline, baseline_discriminator = (
        to_baseline(model, "resnet18").train(),
        copy.deepcopy(discriminator),
    )
    step(model, discriminator, source.double(), label, target.double(), lambda_adv=0.5)

    before = [p.detach().clone() for p in baseline.parameters()]
    sgd, adam = (
        torch.optim.SGD(network.parameters(), lr=1.0)
        for network in (baseline, baseline_discriminator)
    )
    adversarial_iteration(
        baseline,
        baseline_discriminator,
        sgd,
        adam,
        source.double(),
        label,
        target.double(),
        lambda_adv=0.5,
    )
    theirs = {
        name: old - p.detach()
        for (name, p), old in zip(baseline.named_parameters(), before, strict=True)
    }
    ours = to_baseline_names(model)
    ours, theirs = (
        torch.cat([grads[name].flatten() for name in sorted(ours)]) for grads in (ours, theirs)
    )
    assert (ours - theirs).norm() / theirs.norm() < 1e-9
    expected = gradients(baseline_discriminator)
    assert (gradients(discriminator) - expected).norm() / expected.norm() < 1e-9


def to_baseline_names(model):
    """Our gradients under the published network's parameter names."""
    shadow = copy.deepcopy(model)
    for p, q in zip(shadow.parameters(), model.parameters(), strict=True):
        p.data = q.grad
    baseline = to_baseline(shadow, "resnet18")
    return {
        name: p.data for name, p in baseline.named_parameters() if not name.startswith("resnet.fc")
    }


def test_the_discriminator_learns_from_its_step(setting):
    model, discriminator, *batch = setting
    optimizer = torch.optim.SGD(discriminator.parameters(), lr=0.1)
    first = step(model, discriminator, *batch)["loss/discriminator"]
    optimizer.step()
    assert step(model, discriminator, *batch)["loss/discriminator"] < first


def test_the_adversarial_loss_alone_deceives_the_discriminator_and_leaves_it_alone(setting):
    model, discriminator, source, _, target = setting
    all_ignored = torch.full((2, 64, 64), 255)  # the supervised part vanishes
    before = copy.deepcopy(discriminator.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def source_probability():
        return (
            discriminator(model(target, with_aux=False).logits.softmax(1)).sigmoid().mean().item()
        )

    model.zero_grad()
    losses = step(model, discriminator, source, all_ignored, target, lambda_adv=1.0)
    assert losses["loss/segmentation"] == 0
    was = source_probability()
    optimizer.step()
    assert source_probability() > was
    assert all(torch.equal(value, discriminator.state_dict()[key]) for key, value in before.items())


def test_the_discriminators_loss_sends_nothing_to_the_segmenter(setting):
    model, discriminator, source, _, target = setting
    step(model, discriminator, source, torch.full((2, 64, 64), 255), target, lambda_adv=1e-30)
    assert gradients(model).abs().max() < 1e-25
    assert gradients(discriminator).abs().max() > 0


def test_the_adversarial_loss_sends_nothing_to_the_discriminator(setting):
    model, discriminator, *batch = setting
    step(copy.deepcopy(model), discriminator, *batch, lambda_adv=1e6)
    strong = gradients(discriminator)
    discriminator.zero_grad()
    step(copy.deepcopy(model), discriminator, *batch, lambda_adv=1e-6)
    assert torch.equal(strong, gradients(discriminator))


def test_source_and_target_pass_separately(setting):
    """Batch statistics per domain: the source's loss is what it would be without a target."""
    model, discriminator, source, label, target = setting
    alone = step(copy.deepcopy(model), discriminator, source, label, source)["loss/segmentation"]
    assert torch.equal(
        step(copy.deepcopy(model), discriminator, source, label, target * 5 + 3)[
            "loss/segmentation"
        ],
        alone,
    )


def test_losses_are_equations_3_to_5(setting):
    model, discriminator, *batch = setting
    twin = copy.deepcopy(model)
    losses = step(model, discriminator, *batch)
    source_score, target_score = (
        discriminator(twin(image).logits.softmax(1)) for image in (batch[0], batch[2])
    )
    torch.testing.assert_close(losses["loss/adversarial"], domain_loss(target_score, SOURCE))
    expected = 0.5 * -(source_score.sigmoid().log().mean()) + 0.5 * -(
        (1 - target_score.sigmoid()).log().mean()
    )
    torch.testing.assert_close(losses["loss/discriminator"], expected)
    torch.testing.assert_close(
        losses["discriminator_accuracy/source"], (source_score > 0).float().mean()
    )


def test_in_joint_batches_one_pass_sees_both_domains(setting):
    model, discriminator, source, label, target = setting
    twin = copy.deepcopy(model)
    losses = joint_adversarial_step(
        model, [Opponent(discriminator, 0.01)], source, label, target, PLAIN
    )
    output = twin.low_resolution(torch.cat([source, target]))
    expected = sum(cross_entropy(logits[:2], label) for logits in (output.logits, *output.aux))
    torch.testing.assert_close(losses["loss/segmentation"], expected.detach())
    assert int(model.spatial_path[0][1].num_batches_tracked) == 1


def test_joint_and_separate_agree_where_batch_norm_is_frozen(setting):
    model, discriminator, *batch = setting
    model.frozen_batch_norm = True
    model.train()
    joint, joint_discriminator = copy.deepcopy(model), copy.deepcopy(discriminator)
    one = step(model, discriminator, *batch, lambda_adv=0.5)
    other = joint_adversarial_step(joint, [Opponent(joint_discriminator, 0.5)], *batch, PLAIN)
    for name, value in one.items():
        torch.testing.assert_close(other[name], value)
    for a, b in ((model, joint), (discriminator, joint_discriminator)):
        assert (gradients(a) - gradients(b)).norm() / gradients(a).norm() < 1e-4


@pytest.mark.parametrize("play", [adversarial_step, joint_adversarial_step])
def test_a_second_opponent_judges_the_auxiliary_output(setting, play):
    """The gradients of both networks and of both discriminators are those of the sum of all losses,
    written down plainly.
    """
    model, *_, source, label, target = setting
    model, source, target = model.double(), source.double(), target.double()
    first, second = (build_discriminator("light").double() for _ in range(2))
    twin, twin_first, twin_second = (copy.deepcopy(network) for network in (model, first, second))
    losses = play(
        model, [Opponent(first, 0.5), Opponent(second, 0.2, "aux16")], source, label, target, PLAIN
    )

    if play is adversarial_step:
        of_source, of_target = twin(source), twin(target)
    else:
        of_source, of_target = split_output(twin(torch.cat([source, target])), 2)
    total = segmentation_loss(of_source, label)
    judged = (
        (twin_first, of_source.logits, of_target.logits, 0.5),
        (twin_second, of_source.aux[0], of_target.aux[0], 0.2),
    )
    for judge, on_source, on_target, lambda_adv in judged:
        frozen = copy.deepcopy(judge).requires_grad_(False)
        deceived = domain_loss(frozen(on_target.softmax(1)), SOURCE)
        told_apart = domain_loss(judge(on_source.softmax(1).detach()), SOURCE) + domain_loss(
            judge(on_target.softmax(1).detach()), TARGET
        )
        total = total + lambda_adv * deceived + told_apart / 2
    total.backward()
    for ours, theirs in ((model, twin), (first, twin_first), (second, twin_second)):
        assert (gradients(ours) - gradients(theirs)).norm() / gradients(theirs).norm() < 1e-9
    torch.testing.assert_close(losses["loss/adversarial_aux16"], deceived.detach())


def test_the_game_may_be_least_squares_on_entropy_maps(setting):
    model, discriminator, source, label, target = setting
    twin = copy.deepcopy(model)
    rules = game("least-squares", "entropy")
    losses = adversarial_step(
        model, [Opponent(discriminator, 0.01)], source, label, target, PLAIN, rules=rules
    )
    source_score, target_score = (
        discriminator(self_information(twin(image).logits.softmax(1))) for image in (source, target)
    )
    torch.testing.assert_close(
        losses["loss/adversarial"],
        least_squares_domain_loss(target_score, SOURCE).detach(),
        rtol=1e-4,
        atol=1e-5,
    )
    torch.testing.assert_close(
        losses["discriminator_accuracy/source"], (source_score > 0.5).float().mean()
    )


def test_entropy_minimisation_makes_the_network_surer_of_the_target(setting):
    model, _, source, _, target = setting
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    nothing = torch.full((2, 64, 64), 255)

    def entropy():
        optimizer.zero_grad()
        return entropy_step(model, source, nothing, target, 1.0, PLAIN)["loss/entropy"]

    first = entropy()
    assert 0 < first < 1
    optimizer.step()
    assert entropy() < first


def test_pseudo_labels_teach_like_labels_and_few_of_them_weigh_little(setting):
    model, _, source, label, target = setting
    twin = copy.deepcopy(model)
    pseudo = torch.full((2, 64, 64), 255)
    pseudo[0, 0, :32] = 3
    losses = pseudo_label_step(model, source, label, target, pseudo, PLAIN)
    twin.low_resolution(source)  # moves no weight; the passes are separate
    expected = segmentation_loss(twin.low_resolution(target), pseudo) * 32 / pseudo.numel()
    torch.testing.assert_close(losses["loss/pseudo_labels"], expected.detach())
