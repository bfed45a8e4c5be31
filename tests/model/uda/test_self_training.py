import contextlib
import copy

import pytest
import torch

from model.bisenet import BiSeNet
from model.inference.tta import CropRegion
from model.losses.segmentation import segmentation_loss
from model.uda.adversarial import Computation
from model.uda.pseudo_label_weight import Confidence
from model.uda.self_training import Labels, Teacher, class_mix_mask, self_training_step
from tests.helpers.networks import trained_like_network

PLAIN = Computation(contextlib.nullcontext, torch.amp.GradScaler("cpu", enabled=False))


@pytest.fixture
def batch():
    torch.manual_seed(0)
    source, target = torch.randn(2, 2, 3, 64, 64)
    label = torch.randint(0, 19, (2, 64, 64), dtype=torch.uint8)
    label[:, :10] = 255
    return source, label, target


def step(
    model,
    teacher,
    source,
    label,
    target,
    ignored=None,
    mask=None,
    augment=lambda images: images,
    confidence=0.0,
    per="image",
    share=1.0,
    **more,
):
    nowhere = torch.zeros(label.shape, dtype=torch.bool)
    ignored, mask = (nowhere if each is None else each for each in (ignored, mask))
    taught = teacher.label(target, contextlib.nullcontext)
    return self_training_step(
        model,
        taught,
        source,
        label,
        target,
        ignored,
        mask,
        augment,
        Confidence(confidence, per),
        PLAIN._replace(share=share),
        **more,
    )


def gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


class TestTeacher:
    def test_is_the_moving_average_of_weights_and_batch_norm_statistics(self):
        model = BiSeNet().train()
        teacher = Teacher(model, momentum=0.75)
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
            teacher.follow(model, number)
            expected = {
                key: 0.75 * value + 0.25 * model.state_dict()[key]
                for key, value in expected.items()
            }
        found = teacher.network.state_dict()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value)

    def test_begins_with_the_plain_mean_so_that_the_random_beginning_is_forgotten(self):
        model = torch.nn.Linear(1, 1)
        teacher, seen = Teacher(model, momentum=0.99), []
        for number in range(5):
            model.weight.data.fill_(float(number**2))
            seen.append(number**2)
            teacher.follow(model, number)
            assert teacher.network.weight.item() == pytest.approx(sum(seen) / len(seen))

    def test_learns_nothing_by_itself(self, batch):
        model = trained_like_network()
        teacher = Teacher(model.train(), 0.9)
        before = copy.deepcopy(teacher.network.state_dict())
        step(model, teacher, *batch)
        assert all(
            torch.equal(value, before[key]) for key, value in teacher.network.state_dict().items()
        )
        assert not any(p.requires_grad or p.grad is not None for p in teacher.network.parameters())

    def test_with_target_statistics_its_own_become_those_of_the_images_it_labels(self):
        model = BiSeNet()
        teacher = Teacher(model, 0.9, "target")
        torch.manual_seed(1)
        images = torch.randn(4, 3, 64, 64) * 2 + 1
        before = {key: value.clone() for key, value in model.state_dict().items()}
        for _ in range(80):
            teacher.label(images, contextlib.nullcontext)
        first = teacher.network.spatial_path[0][0](images)
        torch.testing.assert_close(
            teacher.network.spatial_path[0][1].running_mean,
            first.mean((0, 2, 3)),
            rtol=1e-2,
            atol=1e-3,
        )
        teacher.follow(model, 50)  # moves the weights alone
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
        found_label, found_probability = Teacher(network, 0.9, scales=(1.0, 0.5)).label(
            images, contextlib.nullcontext
        )
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
        teacher = Teacher(network, 0.9)
        every_label, every_probability = teacher.label(wholes, contextlib.nullcontext)
        halves = torch.tensor(
            [[[0.5, 0, 0.5], [0, 1, 0]], [[-0.5, 0, -0.5], [0, 1, 0]]]
        )  # the right one; the left one, mirrored
        label, probability = teacher.label(
            wholes, contextlib.nullcontext, CropRegion(halves, (64, 64))
        )
        torch.testing.assert_close(
            probability[0], every_probability[0, :, 64:], rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(
            probability[1], every_probability[1, :, :64].flip(1), rtol=1e-4, atol=1e-5
        )
        assert (label[0] == every_label[0, :, 64:]).float().mean() > 0.999
        alone = teacher.label(wholes[:1, :, :, 64:], contextlib.nullcontext)
        assert (alone.label[0] != label[0]).any()

    def test_unknown_statistics(self):
        with pytest.raises(ValueError, match="expected one of averaged, target"):
            Teacher(torch.nn.Linear(1, 1), 0.9, "batch")


class TestClassMix:
    def test_takes_whole_classes_half_of_them_and_never_an_ignored_pixel(self):
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
    def test_pasting_nothing_teaches_the_teachers_labels(self, batch):
        source, label, target = batch
        model = BiSeNet().train()
        teacher = Teacher(trained_like_network(), 0.9)
        losses = step(model, teacher, *batch)
        found = gradient(model)
        twin = BiSeNet().train()
        twin.load_state_dict(model.state_dict())
        pseudo = teacher.network(target).logits.argmax(1)
        expected = (
            segmentation_loss(twin.low_resolution(source), label),
            segmentation_loss(twin.low_resolution(target), pseudo),
        )
        sum(expected).backward()
        torch.testing.assert_close(losses["loss/mixed"], expected[1].detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found, gradient(twin), rtol=1e-3, atol=1e-4)

    def test_pasting_everything_is_the_source_again(self, batch):
        model = BiSeNet().train()
        everywhere = torch.ones(batch[1].shape, dtype=torch.bool)
        losses = step(model, Teacher(model, 0.9), *batch, mask=everywhere, confidence=1.0)
        valid = (batch[1] != 255).float().mean()  # this loss is a mean over all pixels
        torch.testing.assert_close(losses["loss/mixed"], losses["loss/segmentation"] * valid)
        assert losses["mixing/pasted"] == 1

    def test_an_unsure_teacher_teaches_nothing(self, batch):
        model = BiSeNet().train()
        losses = step(model, Teacher(trained_like_network(), 0.9), *batch, confidence=1.0)
        assert losses["loss/mixed"] == 0
        assert losses["teacher/sure"] == 0
        assert losses["loss/segmentation"] > 0

    def test_the_teachers_labels_are_not_weighed_by_class(self, batch):
        """Where all is pasted, the class weights count as on the source; where nothing is, they
        change nothing.
        """
        torch.manual_seed(3)
        model, teacher = BiSeNet().train(), Teacher(trained_like_network(), 0.9)
        everywhere = torch.ones(batch[1].shape, dtype=torch.bool)

        def mixed(mask, weighting=None):
            computation = PLAIN._replace(weighting=weighting)
            ignored, taught = (
                torch.zeros_like(everywhere),
                teacher.label(batch[2], contextlib.nullcontext),
            )
            return self_training_step(
                copy.deepcopy(model),
                taught,
                *batch,
                ignored,
                mask,
                lambda images: images,
                Confidence(0.0),
                computation,
            )["loss/mixed"]

        def treble(_logits, label):
            return torch.full(label.shape, 3.0)

        torch.testing.assert_close(mixed(everywhere, treble), 3 * mixed(everywhere))
        assert torch.equal(mixed(~everywhere, treble), mixed(~everywhere))

    def test_ignored_pixels_of_the_target_teach_nothing(self, batch):
        source, label, target = batch
        ignored = torch.zeros(label.shape, dtype=torch.bool)
        ignored[:, 32:] = True
        teacher = Teacher(trained_like_network(), 0.9)
        wrong = copy.deepcopy(teacher)

        def mislabel(images, autocast):
            answer, probability = Teacher.label(teacher, images, autocast)
            return Labels(
                torch.where(ignored, 18 - answer, answer), torch.where(ignored, 0.0, probability)
            )

        wrong.label = mislabel
        torch.manual_seed(3)
        model = BiSeNet().train()
        first = step(copy.deepcopy(model), teacher, source, label, target, ignored)
        second = step(copy.deepcopy(model), wrong, source, label, target, ignored)
        assert torch.equal(first["loss/mixed"], second["loss/mixed"])
        assert torch.equal(first["teacher/sure"], second["teacher/sure"])

    def test_only_the_mixed_images_change_their_look(self, batch):
        torch.manual_seed(3)
        model, teacher = BiSeNet().train(), Teacher(trained_like_network(), 0.9)
        plain = step(copy.deepcopy(model), teacher, *batch)
        changed = step(copy.deepcopy(model), teacher, *batch, augment=lambda images: images * 0.5)
        assert torch.equal(plain["loss/segmentation"], changed["loss/segmentation"])
        assert torch.equal(plain["teacher/sure"], changed["teacher/sure"])
        assert plain["loss/mixed"] != changed["loss/mixed"]

    def test_joint_batches_normalize_both_kinds_together(self, batch):
        source, label, _ = batch
        torch.manual_seed(3)
        model, teacher = BiSeNet().train(), Teacher(trained_like_network(), 0.9)
        everywhere = torch.ones(label.shape, dtype=torch.bool)
        twin = copy.deepcopy(model)
        losses = step(model, teacher, *batch, mask=everywhere, joint=True)
        both = twin.low_resolution(torch.cat([source, source]))
        torch.testing.assert_close(
            losses["loss/segmentation"], segmentation_loss(both, torch.cat([label, label])).detach()
        )
        assert int(model.spatial_path[0][1].num_batches_tracked) == 1  # one pass

    def test_parts_add_up_to_the_batch(self, batch):
        source, label, target = batch
        model = trained_like_network().train()
        model.frozen_batch_norm = True
        model.train()
        teacher, whole = Teacher(trained_like_network(1), 0.9), copy.deepcopy(model)
        mask = class_mix_mask(label, [1, 2])
        valid = int((label != 255).sum())
        expected = step(whole, teacher, source, label, target, mask=mask, confidence=0.3)
        parts = [
            step(
                model,
                teacher,
                source[i],
                label[i],
                target[i],
                mask=mask[i],
                confidence=0.3,
                valid_pixels=valid,
                share=0.5,
            )
            for i in (slice(0, 1), slice(1, 2))
        ]
        for name, value in expected.items():
            torch.testing.assert_close(parts[0][name] + parts[1][name], value)
        assert (gradient(model) - gradient(whole)).norm() / gradient(whole).norm() < 1e-5
