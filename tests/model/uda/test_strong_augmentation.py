import numpy as np
import pytest
import torch

from dataset.style.photometric import random_blur_sigma, random_color_matrix
from model.preprocessing import INPUT_CONVENTIONS
from model.uda.strong_augmentation import StrongAugmentation, random_blocks


def augmentation(normalize, matrix=None, p_jitter=1.0, p_blur=0.0):
    color = random_color_matrix if matrix is None else lambda _rng: matrix
    return StrongAugmentation(color, random_blur_sigma, p_jitter, p_blur, normalize)


@pytest.fixture
def pictures():
    return torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (2, 24, 32, 3), dtype=np.uint8)
    )


@pytest.mark.parametrize("convention", INPUT_CONVENTIONS)
def test_colors_on_the_device_are_those_on_uint8_images(pictures, convention):
    normalize = INPUT_CONVENTIONS[convention]
    matrix = random_color_matrix(np.random.default_rng(5))
    expected = [
        np.clip(np.rint(picture.numpy() @ matrix[:, :3].T + matrix[:, 3]), 0, 255).astype(np.uint8)
        for picture in pictures
    ]
    found = augmentation(normalize, matrix)(normalize(pictures), [0, 1])
    tolerance = 0.51 / min(normalize.std)  # uint8 is rounded
    torch.testing.assert_close(
        found, normalize(torch.from_numpy(np.stack(expected))), rtol=0, atol=tolerance
    )


def test_the_identity_changes_nothing(pictures):
    x = INPUT_CONVENTIONS["imagenet"](pictures)
    torch.testing.assert_close(
        augmentation(INPUT_CONVENTIONS["imagenet"], np.eye(3, 4))(x, [0, 1]), x, rtol=0, atol=1e-5
    )


def test_probability_0_leaves_the_images_as_they_are(pictures):
    x = INPUT_CONVENTIONS["imagenet"](pictures)
    assert torch.equal(augmentation(INPUT_CONVENTIONS["imagenet"], p_jitter=0.0)(x, [0, 1]), x)


def test_each_image_depends_on_its_own_draw_alone(pictures):
    x, augment = (
        INPUT_CONVENTIONS["imagenet"](pictures),
        augmentation(INPUT_CONVENTIONS["imagenet"], p_blur=0.5),
    )
    both = augment(x, [7, 8])
    assert torch.equal(both[1], augment(x[1:], [8])[0])
    assert not torch.equal(augment(x, [7, 9])[1], both[1])


def test_blur_keeps_the_mean_and_lessens_the_contrast(pictures):
    x = INPUT_CONVENTIONS["imagenet"](pictures)
    blurred = augmentation(INPUT_CONVENTIONS["imagenet"], p_jitter=0.0, p_blur=1.0)(x, [3, 4])
    torch.testing.assert_close(blurred.mean((2, 3)), x.mean((2, 3)), rtol=0, atol=0.05)
    assert (blurred.std((2, 3)) < x.std((2, 3))).all()


@pytest.mark.parametrize("size", [(64, 128), (130, 70), (5, 3)])
def test_blocks_are_hidden_at_random(size):
    """Whole squares, a fraction of them, others in every image, the same ones for a seed."""
    label = torch.zeros((200, *size))
    hidden = random_blocks(label, 0.3, range(200))
    side = max(1, min(size) // 8)
    assert hidden.shape == label.shape
    assert torch.equal(hidden, random_blocks(label, 0.3, range(200)))
    corners = hidden[:, ::side, ::side]
    blocks = corners.repeat_interleave(side, 1).repeat_interleave(side, 2)
    assert torch.equal(hidden, blocks[:, : size[0], : size[1]])
    assert float(corners.float().mean()) == pytest.approx(0.3, abs=0.04)
    assert len({image.numpy().tobytes() for image in corners}) > 100
    assert not random_blocks(label, 0.0, range(200)).any()
    assert random_blocks(label, 1.0, range(200)).all()
