import numpy as np
import pytest

from dataset.cityscapes import cityscapes
from dataset.gta5 import gta5
from dataset.image_io import read_image
from dataset.style.fda import FourierTransfer, fourier_transfer, low_frequencies
from dataset.style.photometric import (
    ColorJitter,
    GaussianBlur,
    RandomApply,
    build_style_transforms,
    random_color_matrix,
)
from dataset.transforms import CropOrigin


def picture(seed: int, size=(60, 84)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ramp = np.add.outer(np.arange(size[0]), np.arange(size[1]))[..., None] * rng.uniform(
        0.2, 0.8, 3
    )
    return (
        (ramp + rng.integers(0, 90, (*size, 3)) + rng.integers(0, 40)).clip(0, 255).astype(np.uint8)
    )


def origin(image: np.ndarray, slices=np.s_[:, :]) -> CropOrigin:
    axes = zip(slices, image.shape[:2], strict=True)
    return CropOrigin(0, image, tuple(slice(*part.indices(length)) for part, length in axes))


def plain_fda(source: np.ndarray, target: np.ndarray, reach: int) -> np.ndarray:
    """FDA as the paper writes it: amplitudes swapped in the middle of the shifted spectrum."""
    result = np.empty(source.shape)
    for channel in range(3):
        of_source, of_target = (
            np.fft.fftshift(np.fft.fft2(image[..., channel].astype(float)))
            for image in (source, target)
        )
        y, x = (length // 2 for length in source.shape[:2])
        middle = np.s_[y - reach : y + reach + 1, x - reach : x + reach + 1]
        amplitude, phase = np.abs(of_source), np.angle(of_source)
        amplitude[middle] = np.abs(of_target)[middle]
        result[..., channel] = np.fft.ifft2(np.fft.ifftshift(amplitude * np.exp(1j * phase))).real
    return result


class TestFourier:
    @pytest.mark.parametrize("reach", [0, 1, 3])
    def test_equals_swapping_amplitudes_in_the_whole_spectrum(self, reach):
        source, target = picture(1), picture(2)
        found = fourier_transfer(source, origin(source), np.abs(low_frequencies(target, reach)))
        assert np.abs(found - plain_fda(source, target, reach).clip(0, 255)).max() <= 0.51

    def test_of_a_crop_is_the_crop_of_it(self):
        source, amplitudes = picture(1), np.abs(low_frequencies(picture(2), 2))
        whole = fourier_transfer(source, origin(source), amplitudes)
        for where in (np.s_[7:31, 13:59], np.s_[59:, 1:2]):
            assert (
                np.abs(
                    fourier_transfer(source[where], origin(source, where), amplitudes).astype(int)
                    - whole[where]
                ).max()
                <= 1
            )

    def test_onto_itself_changes_nothing(self):
        source = picture(3)
        assert np.array_equal(
            fourier_transfer(source, origin(source), np.abs(low_frequencies(source, 3))), source
        )

    def test_with_no_wave_but_the_mean_it_moves_the_mean(self):
        source, target = picture(1), picture(2)
        found = fourier_transfer(source, origin(source), np.abs(low_frequencies(target, 0)))
        assert found.mean((0, 1)) == pytest.approx(
            target.mean((0, 1)), abs=3
        )  # but for values cut at 0 and 255

    def test_targets_of_another_size(self):
        source, target = picture(1), picture(2)
        large = np.kron(target, np.ones((2, 2, 1), np.uint8))
        small, twice = (np.abs(low_frequencies(image, 1)) for image in (target, large))
        assert twice == pytest.approx(small, rel=0.02)
        assert fourier_transfer(source, origin(source), twice).shape == source.shape

    def test_the_step_takes_different_targets(self, gta5_root, cityscapes_root):
        image, rng = read_image(gta5(gta5_root)[0].image), np.random.default_rng(0)
        step = FourierTransfer(cityscapes(cityscapes_root, "train", labels=False))
        assert len({step(image, origin(image), rng).tobytes() for _ in range(40)}) == 5

    def test_a_black_source(self):
        black, target = np.zeros((60, 84, 3), np.uint8), picture(2)
        assert np.isfinite(
            fourier_transfer(black, origin(black), np.abs(low_frequencies(target, 1)))
        ).all()


class TestJitter:
    def test_without_strength_it_is_the_identity(self):
        assert random_color_matrix(np.random.default_rng(0), strength=0, hue=0) == pytest.approx(
            np.eye(3, 4)
        )

    def test_grey_stays_grey(self):
        for seed in range(20):
            red, green, blue = random_color_matrix(np.random.default_rng(seed)) @ [90, 90, 90, 1]
            assert red == pytest.approx(green)
            assert green == pytest.approx(blue)

    def test_hue_alone_keeps_the_sum_of_the_channels(self):
        turned = random_color_matrix(np.random.default_rng(1), strength=0, hue=0.1) @ [
            200,
            40,
            10,
            1,
        ]
        assert turned.sum() == pytest.approx(250)
        assert turned != pytest.approx([200, 40, 10], abs=5)

    def test_a_function_of_the_rng_that_keeps_shape_and_type(self):
        image = picture(1)
        one, same, other = (
            ColorJitter()(image[3:20], origin(image), np.random.default_rng(seed))
            for seed in (1, 1, 2)
        )
        assert np.array_equal(one, same)
        assert not np.array_equal(one, other)
        assert one.shape == (17, 84, 3)
        assert one.dtype == np.uint8


def test_blur_smooths():
    image = picture(1)
    blurred = GaussianBlur()(image, origin(image), np.random.default_rng(0))
    assert (
        np.abs(np.diff(blurred.astype(int), axis=1)).mean()
        < np.abs(np.diff(image.astype(int), axis=1)).mean()
    )


def test_sometimes_is_as_often_as_asked():
    image, rng = picture(1, (4, 4)), np.random.default_rng(0)
    step = RandomApply(lambda crop, _origin, _rng: crop * 0, 0.3)
    times = sum(not step(image, origin(image), rng).any() for _ in range(1000))
    assert 250 < times < 350


def test_steps_are_those_asked_for_in_their_order(gta5_root, cityscapes_root):
    source, target = gta5(gta5_root), cityscapes(cityscapes_root, "train", labels=False)
    assert build_style_transforms(source, None) == []
    steps = build_style_transforms(source, target, lab=1, jitter=0.5, blur=1)
    assert [type(step).__name__ for step in steps] == ["LabTransfer", "RandomApply", "GaussianBlur"]
    with pytest.raises(ValueError, match="Choose one"):
        build_style_transforms(source, target, lab=1, fda=1)
    with pytest.raises(ValueError, match="without --lab"):
        build_style_transforms(source, target, lab_class_balanced=True)
