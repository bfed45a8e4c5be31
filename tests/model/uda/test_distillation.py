"""Laws of distillation from adapted networks."""

import copy
from pathlib import Path

import pytest
import torch

from dataset.style.photometric import RANDOM_CHANGES
from model.bisenet import BiSeNet
from model.inference.tta import TTAView, mean_probabilities
from model.losses.segmentation import ClassWeights, segmentation_loss
from model.preprocessing import INPUT_CONVENTIONS
from model.training_step import StepContext
from model.uda.base import MethodSetting, find_methods
from model.uda.collapse_monitor import CollapseMonitor
from model.uda.distillation import DistillationOptions, SoftClassWeights, soft_cross_entropy
from tests.helpers.methods import PLAIN, RUN, as_checkpoint, gradients, make_batch
from tests.helpers.networks import trained_like_network
from utils.training.checkpoint import read_checkpoint


def distil(model, teachers, context: StepContext = PLAIN, input_name="imagenet", **options):
    """The method with in-memory teachers, without augmentation."""
    files = {f"{number}.pt": as_checkpoint(t, input_name) for number, t in enumerate(teachers)}
    setting = MethodSetting(
        context,
        19,
        INPUT_CONVENTIONS["imagenet"],
        random_changes=RANDOM_CHANGES,
        read_checkpoint=lambda path: files[str(path)],
    )
    method = find_methods()["distil"]
    plain = {"strong_jitter": 0.0, "strong_blur": 0.0, "teacher_context": "crop"}
    return method(model, method.Options(teachers=tuple(files), **plain | options), setting)


@pytest.fixture
def batches():
    torch.manual_seed(0)
    source, target = torch.randn(2, 2, 3, 64, 64)
    label = torch.randint(0, 19, (2, 64, 64))
    mask = torch.zeros(2, 64, 64, dtype=torch.uint8)
    mask[1, :, 48:] = 255  # padding
    return make_batch(source, label, label.numel()), make_batch(target, mask)


def test_hard_probabilities_give_the_usual_loss():
    """One-hot probabilities: the segmentation loss, ignored pixels counting in the mean."""
    torch.manual_seed(0)
    label = torch.randint(0, 19, (2, 64, 64))
    valid = torch.rand(2, 64, 64) > 0.3
    output = BiSeNet().train().low_resolution(torch.randn(2, 3, 64, 64))
    hard = torch.nn.functional.one_hot(label, 19).permute(0, 3, 1, 2).float()
    expected = segmentation_loss(output, label.masked_fill(~valid, 255), valid_pixels=label.numel())
    torch.testing.assert_close(soft_cross_entropy(output, hard, valid), expected)


def test_the_loss_is_lowest_at_the_teachers_mean(batches):
    """Its gradient for the logits vanishes where the network gives their mean probabilities."""
    teachers = [trained_like_network(1), trained_like_network(2)]
    method = distil(BiSeNet().train(), teachers)
    _, target = batches
    found = method._probabilities(target)
    expected = sum(
        mean_probabilities(t, target.image, [TTAView(1.0)], PLAIN.autocast) for t in teachers
    )
    torch.testing.assert_close(found, expected / 2)
    torch.testing.assert_close(found.sum(1), torch.ones(2, 64, 64))
    logits = found.log().requires_grad_()
    output = type("Output", (), {"logits": logits, "aux": ()})
    soft_cross_entropy(output, found, torch.ones(2, 64, 64)).backward()
    assert logits.grad.abs().max() < 1e-8


def test_soft_labels_are_weighted_by_the_shares_of_their_classes():
    """Weights of ClassWeights, from the steps before; the network learns q_c sqrt(w_c)."""
    torch.manual_seed(0)
    weights = SoftClassWeights(3)
    assert weights.weights().tolist() == [1, 1, 1]
    share = torch.tensor([0.7, 0.2, 0.1])
    for _ in range(2):  # micro-batches
        probabilities = share[None, :, None, None].repeat(2, 1, 4, 4)
        probabilities[1, :, :, 2:] = 1 / 3  # padding
        valid = torch.ones(2, 4, 4, dtype=torch.bool)
        valid[1, :, 2:] = False
        weights.add(probabilities, valid)
        assert weights.weights().tolist() == [1, 1, 1]
    weights.after_step()
    found = weights.weights()
    expected = ClassWeights(share, torch.device("cpu"))
    torch.testing.assert_close(found, expected.table[:3])
    torch.testing.assert_close((found * share).sum(), torch.tensor(1.0))

    learned = share * found.sqrt()
    logits = learned.log()[None, :, None, None].requires_grad_()
    output = type("Output", (), {"logits": logits, "aux": ()})
    weighted = (share * found)[None, :, None, None]
    soft_cross_entropy(output, weighted, torch.ones(1, 1, 1), 0.5 * found.log()).backward()
    assert logits.grad.abs().max() < 1e-7


def test_a_class_that_the_target_lacks_gets_a_bounded_weight():
    weights = SoftClassWeights(2)
    weights.add(torch.tensor([1.0, 1e-12])[None, :, None, None], torch.ones(1, 1, 1).bool())
    weights.after_step()
    assert 90 < weights.weights()[1] / weights.weights()[0] < 110


def test_weights_of_soft_labels_reach_the_gradient(batches):
    """From the second step on; in the first one they are 1."""
    found = {}
    for kind in ("none", "class"):
        torch.manual_seed(1)
        model = BiSeNet().train()
        method = distil(model, [trained_like_network(1)], soft_label_weights=kind)
        found[kind] = []
        for step in range(2):
            model.zero_grad()
            method.step(*batches)
            method.after_step(step)
            found[kind].append(gradients(model))
    torch.testing.assert_close(found["none"][0], found["class"][0])
    change = (found["none"][1] - found["class"][1]).norm() / found["none"][1].norm()
    assert change > 0.01


def test_source_and_target_losses_add_up(batches):
    """lambda_source weighs the source; 0 leaves it out, and its batches are not looked at."""
    found, logged = {}, {}
    for weight in (0.0, 1.0, 3.0):
        torch.manual_seed(1)
        model = BiSeNet().train()
        losses = distil(model, [trained_like_network(1)], lambda_source=weight).step(*batches)
        found[weight] = gradients(model)
        assert ("loss/segmentation" in losses) == (weight > 0)
        logged[weight] = losses.get("loss/segmentation")
    torch.testing.assert_close(logged[3.0], logged[1.0])  # what is logged is a cross-entropy
    source = found[1.0] - found[0.0]
    torch.testing.assert_close(found[3.0] - found[0.0], 3 * source, rtol=1e-3, atol=1e-4)


def test_a_missing_teacher_is_named_with_its_flag():
    """A resumed run needs the files, too, and the message says so."""
    setting = MethodSetting(
        PLAIN, 19, INPUT_CONVENTIONS["imagenet"], read_checkpoint=read_checkpoint
    )
    method = find_methods()["distil"]
    with pytest.raises(FileNotFoundError, match=r"--teachers: .*gone\.pt.* resumed run needs"):
        method(BiSeNet(), method.Options(teachers=(Path("gone.pt"),)), setting)


def test_padding_is_no_part_of_the_target(batches):
    """Neither of the class shares nor of the teachers' confidence."""
    monitor = CollapseMonitor([str(index) for index in range(19)], 1, 1, torch.device("cpu"))
    method = distil(BiSeNet().train(), [trained_like_network(1)])
    method.collapse_monitor = monitor
    source, target = batches
    losses = method.step(source, target)
    assert monitor._step[0].sum() == 8 * 8 + 6 * 8  # pixels of the output without padding
    highest = method._probabilities(target).amax(1)
    expected = (highest[0].mean() + highest[1, :, :48].mean()) / 2
    torch.testing.assert_close(losses["teachers/confidence"], expected)


def test_teachers_stay_as_they_are_and_are_saved(batches):
    """Their BatchNorm too; a checkpoint holds them; what they have seen is known."""
    teacher = trained_like_network(1)
    method = distil(BiSeNet().train(), [teacher])
    before = copy.deepcopy(method.state()["teachers"].state_dict())
    method.step(*batches)
    after = method.state()["teachers"].state_dict()
    assert all(torch.equal(value, before[key]) for key, value in after.items())
    assert not any(p.requires_grad for p in method.teachers.parameters())
    assert [origin["seen_images"] for origin in method.origins] == [["a"]]
    assert "parts" not in method.origins[0]


def test_teachers_of_another_kind_are_refused():
    """None at all, one that would count twice, another input, other classes."""
    with pytest.raises(ValueError, match="needs --teachers FILE"):
        DistillationOptions().check(RUN)
    same = Path("a/last.pt"), Path("b/last.pt"), Path("b/../a/last.pt")
    with pytest.raises(ValueError, match="names one checkpoint 2 times"):
        DistillationOptions(teachers=same).check(RUN)
    with pytest.raises(ValueError, match="trained with another --input"):
        distil(BiSeNet(), [trained_like_network(1)], input_name="unit_rgb")
    with pytest.raises(ValueError, match="has 5 classes; 19"):
        distil(BiSeNet(), [trained_like_network(1, 5)])
