"""Laws of online self-training: the teacher, ClassMix, the losses of a step."""

import contextlib
import copy

import pytest
import torch

from model.bisenet import BiSeNet
from model.inference.tta import CropRegion, TTAView
from model.losses.segmentation import segmentation_loss
from model.uda import self_training
from model.uda.self_training import EMATeacher, PseudoLabels, class_mix_mask
from tests.helpers.methods import PLAIN, build_method, gradients, make_batch
from tests.helpers.networks import trained_like_network

pytestmark = pytest.mark.usefixtures("narrow_networks")


@pytest.fixture
def batch():
    torch.manual_seed(0)
    source, target = torch.randn(2, 2, 3, 64, 64)
    label = torch.randint(0, 19, (2, 64, 64), dtype=torch.uint8)
    label[:, :10] = 255
    return source, label, target


@pytest.fixture
def step(monkeypatch):
    """Adds the gradients of one step with a given teacher; returns its losses."""

    def run(model, teacher, source, label, target, ignored=None, pasted=None, **more):
        nowhere = torch.zeros(label.shape, dtype=torch.bool)
        ignored, pasted = (nowhere if mask is None else mask for mask in (ignored, pasted))
        valid_pixels, augment = more.pop("valid_pixels", None), more.pop("augment", None)
        context = PLAIN._replace(**more.pop("context", {}))
        options = {"pseudo_threshold": 0.0} | more
        method = build_method("self-training", model, context, **options)
        method.teacher = teacher
        method.augment = augment or (lambda images, _seeds: images)
        monkeypatch.setattr(self_training, "class_mix_mask", lambda *_: pasted)
        target_label = torch.where(ignored, 255, 0).to(torch.uint8)
        return method.step(
            make_batch(source, label, valid_pixels), make_batch(target, target_label)
        )

    return run


class TestTeacher:
    def test_averages_weights_and_batch_norm_statistics(self):
        model = BiSeNet().train()
        teacher = EMATeacher(model, momentum=0.75)
        expected = {
            key: value.clone()
            for key, value in model.state_dict().items()
            if value.is_floating_point()
        }
        for number in range(10, 13):  # past the first steps
            for tensor in (
                *model.parameters(),
                *(b for b in model.buffers() if b.is_floating_point()),
            ):
                tensor.data.add_(1.0)
            teacher.update(model, number)
            expected = {
                key: 0.75 * value + 0.25 * model.state_dict()[key]
                for key, value in expected.items()
            }
        found = teacher.network.state_dict()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value)

    def test_begins_with_the_plain_mean(self):
        """Early steps use a smaller momentum, so that the initial weights are forgotten."""
        model = torch.nn.Linear(1, 1)
        teacher, seen = EMATeacher(model, momentum=0.99), []
        for number in range(5):
            model.weight.data.fill_(float(number**2))
            seen.append(number**2)
            teacher.update(model, number)
            assert teacher.network.weight.item() == pytest.approx(sum(seen) / len(seen))

    def test_learns_nothing_by_itself(self, batch, step):
        model = trained_like_network()
        teacher = EMATeacher(model.train(), 0.9)
        before = copy.deepcopy(teacher.network.state_dict())
        step(model, teacher, *batch)
        assert all(
            torch.equal(value, before[key]) for key, value in teacher.network.state_dict().items()
        )
        assert not any(p.requires_grad or p.grad is not None for p in teacher.network.parameters())

    def test_target_statistics_are_those_of_the_labelled_images(self):
        """With BatchNorm statistics of the target, they become those of the images it labels."""
        model = BiSeNet()
        teacher = EMATeacher(model, 0.9, "target")
        torch.manual_seed(1)
        images = torch.randn(4, 3, 64, 64) * 2 + 1
        before = {key: value.clone() for key, value in model.state_dict().items()}
        for _ in range(80):
            teacher.pseudo_label(images, contextlib.nullcontext)
        first = teacher.network.spatial_path[0][0](images)
        torch.testing.assert_close(
            teacher.network.spatial_path[0][1].running_mean,
            first.mean((0, 2, 3)),
            rtol=1e-2,
            atol=1e-3,
        )
        teacher.update(model, 50)  # moves the weights alone
        torch.testing.assert_close(
            teacher.network.spatial_path[0][1].running_mean,
            first.mean((0, 2, 3)),
            rtol=1e-2,
            atol=1e-3,
        )
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())

    def test_looks_at_every_image_in_each_of_its_sizes(self):
        torch.manual_seed(2)
        network, images = trained_like_network().eval(), torch.randn(2, 3, 64, 96)
        teacher = EMATeacher(network, 0.9, views=(TTAView(1.0), TTAView(0.5)))
        found_label, found_probability = teacher.pseudo_label(images, contextlib.nullcontext)
        with torch.no_grad():
            half = torch.nn.functional.avg_pool2d(
                images, 2
            )  # what bilinear interpolation to half the size is
            probabilities = [
                torch.nn.functional.interpolate(
                    network.low_resolution(seen).logits, (64, 96), mode="bilinear"
                ).softmax(1)
                for seen in (images, half)
            ]
        expected_probability, expected_label = (sum(probabilities) / 2).max(1)
        torch.testing.assert_close(found_probability, expected_probability, rtol=1e-4, atol=1e-5)
        assert (found_label == expected_label).float().mean() > 0.999
        assert (
            found_label != probabilities[0].argmax(1)
        ).any()  # one size alone says something else

    def test_labels_a_part_with_what_is_around_it_in_view(self):
        torch.manual_seed(2)
        network, wholes = trained_like_network().eval(), torch.randn(2, 3, 64, 128)
        teacher = EMATeacher(network, 0.9)
        every_label, every_probability = teacher.pseudo_label(wholes, contextlib.nullcontext)
        halves = torch.tensor(
            [[[0.5, 0, 0.5], [0, 1, 0]], [[-0.5, 0, -0.5], [0, 1, 0]]]
        )  # the right one; the left one, mirrored
        label, probability = teacher.pseudo_label(
            wholes, contextlib.nullcontext, CropRegion(halves, (64, 64))
        )
        torch.testing.assert_close(
            probability[0], every_probability[0, :, 64:], rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(
            probability[1], every_probability[1, :, :64].flip(1), rtol=1e-4, atol=1e-5
        )
        assert (label[0] == every_label[0, :, 64:]).float().mean() > 0.999
        alone = teacher.pseudo_label(wholes[:1, :, :, 64:], contextlib.nullcontext)
        assert (alone.label[0] != label[0]).any()

    def test_unknown_statistics(self):
        with pytest.raises(ValueError, match="expected one of ema, target"):
            EMATeacher(torch.nn.Linear(1, 1), 0.9, "batch")


class TestClassMix:
    def test_pastes_half_of_the_classes_and_no_ignored_pixel(self):
        label = torch.tensor(
            [[[0, 0, 1], [2, 3, 255]], [[5, 5, 5], [255, 255, 5]]], dtype=torch.uint8
        )
        for draw in range(20):
            mask = class_mix_mask(label, [draw, draw])
            taken = set(label[0][mask[0]].tolist())
            assert len(taken) == 2
            assert 255 not in taken
            assert not taken & set(label[0][~mask[0]].tolist())
            assert torch.equal(
                mask[1], label[1] == 5
            )  # of one class the half, rounded up, is that class

    def test_depends_on_the_draw_alone_and_reaches_every_class(self):
        label = torch.arange(6, dtype=torch.uint8).view(1, 2, 3)
        masks = [class_mix_mask(label, [draw]) for draw in range(30)]
        assert torch.equal(masks[3], class_mix_mask(label, [3]))
        assert torch.stack(masks).any(0).all()
        assert not torch.stack(masks).all(0).any()

    def test_an_image_without_any_class(self):
        assert not class_mix_mask(torch.full((1, 4, 4), 255, dtype=torch.uint8), [0]).any()


class TestStep:
    def test_pasting_nothing_teaches_the_teachers_labels(self, batch, step):
        source, label, target = batch
        model = BiSeNet().train()
        teacher = EMATeacher(trained_like_network(), 0.9)
        losses = step(model, teacher, *batch)
        found = gradients(model)
        twin = BiSeNet().train()
        twin.load_state_dict(model.state_dict())
        pseudo = teacher.network(target).logits.argmax(1)
        expected = (
            segmentation_loss(twin.low_resolution(source), label),
            segmentation_loss(twin.low_resolution(target), pseudo),
        )
        sum(expected).backward()
        torch.testing.assert_close(losses["loss/mixed"], expected[1].detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found, gradients(twin), rtol=1e-3, atol=1e-4)

    def test_pasting_everything_is_the_source_again(self, batch, step):
        model = BiSeNet().train()
        everywhere = torch.ones(batch[1].shape, dtype=torch.bool)
        losses = step(
            model, EMATeacher(model, 0.9), *batch, pasted=everywhere, pseudo_threshold=1.0
        )
        valid = (batch[1] != 255).float().mean()  # this loss is a mean over all pixels
        torch.testing.assert_close(losses["loss/mixed"], losses["loss/segmentation"] * valid)
        assert losses["classmix/pasted_fraction"] == 1

    def test_an_unsure_teacher_teaches_nothing(self, batch, step):
        model = BiSeNet().train()
        losses = step(model, EMATeacher(trained_like_network(), 0.9), *batch, pseudo_threshold=1.0)
        assert losses["loss/mixed"] == 0
        assert losses["pseudo_label/confident_fraction"] == 0
        assert losses["loss/segmentation"] > 0

    def test_the_teachers_labels_are_not_weighed_by_class(self, batch, step):
        """Where all is pasted, the class weights count as on the source; where nothing is, they
        change nothing.
        """
        torch.manual_seed(3)
        model, teacher = BiSeNet().train(), EMATeacher(trained_like_network(), 0.9)
        everywhere = torch.ones(batch[1].shape, dtype=torch.bool)

        def mixed(pasted, pixel_weights=None):
            twin, context = copy.deepcopy(model), {"pixel_weights": pixel_weights}
            return step(twin, teacher, *batch, pasted=pasted, context=context)["loss/mixed"]

        def treble(_logits, label):
            return torch.full(label.shape, 3.0)

        torch.testing.assert_close(mixed(everywhere, treble), 3 * mixed(everywhere))
        assert torch.equal(mixed(~everywhere, treble), mixed(~everywhere))

    def test_pixel_weights_see_pasted_pixels_alone(self, batch, step):
        """Hard examples are chosen among labels, never among the teacher's."""
        seen = []

        def weights(_logits, label):
            seen.append(label)
            return torch.ones(label.shape)

        label, teacher = batch[1], EMATeacher(trained_like_network(), 0.9)
        pasted = (label % 2 == 0) & (label != 255)
        context = {"pixel_weights": weights}
        step(BiSeNet().train(), teacher, *batch, pasted=pasted, context=context)
        assert torch.equal(seen[0], label)
        assert torch.equal(seen[-1].long(), torch.where(pasted, label, 255).long())

    def test_ignored_pixels_of_the_target_teach_nothing(self, batch, step):
        source, label, target = batch
        ignored = torch.zeros(label.shape, dtype=torch.bool)
        ignored[:, 32:] = True
        teacher = EMATeacher(trained_like_network(), 0.9)
        wrong = copy.deepcopy(teacher)

        def mislabel(images, autocast, region):
            answer, probability = EMATeacher.pseudo_label(teacher, images, autocast, region)
            return PseudoLabels(
                torch.where(ignored, 18 - answer, answer), torch.where(ignored, 0.0, probability)
            )

        wrong.pseudo_label = mislabel
        torch.manual_seed(3)
        model = BiSeNet().train()
        first = step(copy.deepcopy(model), teacher, source, label, target, ignored)
        second = step(copy.deepcopy(model), wrong, source, label, target, ignored)
        assert torch.equal(first["loss/mixed"], second["loss/mixed"])
        assert torch.equal(
            first["pseudo_label/confident_fraction"], second["pseudo_label/confident_fraction"]
        )

    def test_only_the_targets_part_is_hidden(self, batch, step):
        """All of it here: the images of the target do not count, their labels do."""
        source, label, target = batch
        pasted = torch.zeros(label.shape, dtype=torch.bool)
        pasted[:, 32:] = True
        torch.manual_seed(3)
        model, teacher = BiSeNet().train(), EMATeacher(trained_like_network(), 0.9)
        answer = teacher.pseudo_label(target, contextlib.nullcontext)

        def mixed(mask_fraction, source=source, target=target, answer=answer):
            teacher.pseudo_label = lambda *_: answer
            options = {"pasted": pasted, "mask_fraction": mask_fraction}
            return step(copy.deepcopy(model), teacher, source, label, target, **options)[
                "loss/mixed"
            ]

        other = torch.randn_like(target)
        assert mixed(0.0, target=other) != mixed(0.0)
        assert mixed(1.0, target=other) == mixed(1.0) != mixed(0.0)
        assert mixed(1.0, source=torch.randn_like(source)) != mixed(1.0)
        assert mixed(1.0, answer=answer._replace(label=18 - answer.label)) != mixed(1.0)

    def test_only_the_mixed_images_change_their_look(self, batch, step):
        torch.manual_seed(3)
        model, teacher = BiSeNet().train(), EMATeacher(trained_like_network(), 0.9)
        plain = step(copy.deepcopy(model), teacher, *batch)
        changed = step(
            copy.deepcopy(model), teacher, *batch, augment=lambda images, _seeds: images * 0.5
        )
        assert torch.equal(plain["loss/segmentation"], changed["loss/segmentation"])
        assert torch.equal(
            plain["pseudo_label/confident_fraction"], changed["pseudo_label/confident_fraction"]
        )
        assert plain["loss/mixed"] != changed["loss/mixed"]

    def test_joint_batches_normalize_both_kinds_together(self, batch, step):
        source, label, _ = batch
        torch.manual_seed(3)
        model, teacher = BiSeNet().train(), EMATeacher(trained_like_network(), 0.9)
        everywhere = torch.ones(label.shape, dtype=torch.bool)
        twin = copy.deepcopy(model)
        losses = step(model, teacher, *batch, pasted=everywhere, joint_batch_norm=True)
        both = twin.low_resolution(torch.cat([source, source]))
        torch.testing.assert_close(
            losses["loss/segmentation"], segmentation_loss(both, torch.cat([label, label])).detach()
        )
        assert int(model.spatial_path[0][1].num_batches_tracked) == 1  # one pass

    def test_parts_add_up_to_the_batch(self, batch, step):
        source, label, target = batch
        model = trained_like_network().train()
        model.frozen_batch_norm = True
        model.train()
        teacher, whole = EMATeacher(trained_like_network(1), 0.9), copy.deepcopy(model)
        mask = class_mix_mask(label, [1, 2])
        valid = int((label != 255).sum())
        expected = step(whole, teacher, source, label, target, pasted=mask, pseudo_threshold=0.3)
        parts = [
            step(
                model,
                teacher,
                source[i],
                label[i],
                target[i],
                pasted=mask[i],
                pseudo_threshold=0.3,
                valid_pixels=valid,
                context={"batch_fraction": 0.5},
            )
            for i in (slice(0, 1), slice(1, 2))
        ]
        for name, value in expected.items():
            torch.testing.assert_close(parts[0][name] + parts[1][name], value)
        assert (gradients(model) - gradients(whole)).norm() / gradients(whole).norm() < 1e-5
