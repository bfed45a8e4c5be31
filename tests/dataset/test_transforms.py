from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dataset.image_io import read_image
from dataset.label_io import read_label
from dataset.labels import TRAIN_ID_OF
from dataset.transforms import AxisCrop, RandomScaleCropFlip, WholeImage, resize_area

SIZES = [(97, 201), (64, 128), (70, 75)]
SCALES = (0.5, 0.75, 1.0, 1.5)


def scaled_whole(image, label, scale):
    """The reference: everything resized, by the coordinate rule of the module's first lines."""
    resize_area = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    rows, columns = (
        np.clip(
            np.floor((np.arange(int(Fraction(scale) * full)) + 0.5) / scale).astype(int),
            0,
            full - 1,
        )
        for full in label.shape
    )
    return resize_area, label[rows][:, columns]


def data(size, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*size, 3)).astype(np.uint8), rng.integers(0, 19, size).astype(
        np.uint8
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", SCALES)
def test_a_crop_equals_the_crop_of_the_resized_image(size, scale):
    """Resizing only the needed source pixels equals resizing the whole image and cropping."""
    image, label = data(size)
    whole_image, whole_label = scaled_whole(image, label, scale)
    choose_window = RandomScaleCropFlip((scale,), (32, 40), flip=0.0).choose_window
    for seed in range(60):
        window = choose_window(np.random.default_rng(seed), size)
        y, x = window.rows.start, window.columns.start
        height, width = window.rows.length, window.columns.length
        found = window.apply_to_image(image[window.input_slices()], (1, 2, 3))
        assert np.array_equal(found[:height, :width], whole_image[y : y + height, x : x + width])
        assert np.array_equal(
            window.apply_to_label(label[window.input_slices()])[:height, :width],
            whole_label[y : y + height, x : x + width],
        )


@pytest.mark.parametrize("scale", SCALES)
def test_a_crop_of_a_real_frame_equals_the_whole(real_data, scale):
    """Resizing only the needed pixels of a real frame equals resizing all and cropping."""
    for root, image_path in (
        ("gta5", "images/08688.png"),
        ("cityscapes", "leftImg8bit/train/zurich/zurich_000066_000019_leftImg8bit.png"),
    ):
        label_path = (
            image_path.replace("images/", "labels/")
            .replace("leftImg8bit/", "gtFine/")
            .replace("leftImg8bit.", "gtFine_labelIds.")
        )
        image, label = (
            read_image(real_data / "frames" / root / image_path),
            read_label(real_data / "frames" / root / label_path),
        )
        whole_image, whole_label = scaled_whole(image, TRAIN_ID_OF[label], scale)
        for seed in range(2):
            window = RandomScaleCropFlip((scale,), (512, 1024), flip=0.0).choose_window(
                np.random.default_rng(seed), label.shape
            )
            inside = np.s_[: window.rows.length, : window.columns.length]
            there = np.s_[window.rows.start :, window.columns.start :]
            found_image = window.apply_to_image(image[window.input_slices()], (0, 0, 0))[inside]
            found_label = window.apply_to_label(label[window.input_slices()], TRAIN_ID_OF)[inside]
            assert np.array_equal(found_image, whole_image[there][inside])
            assert np.array_equal(found_label, whole_label[there][inside])


def test_the_region_is_no_larger_than_needed():
    for scale in map(Fraction, SCALES):
        for start in range(100):
            region, _ = AxisCrop(start, 64, scale, 400).input_slice()
            assert region.stop - region.start <= 64 / scale + 8


def test_every_place_and_both_mirror_images_are_drawn():
    choose_window = RandomScaleCropFlip((1.0,), (62, 120)).choose_window
    windows = [choose_window(np.random.default_rng(seed), (64, 128)) for seed in range(500)]
    assert {w.rows.start for w in windows} == {0, 1, 2}
    assert {w.columns.start for w in windows} == set(range(9))
    assert 200 < sum(w.flip for w in windows) < 300


def test_a_flip_mirrors_image_and_label():
    image, label = data((64, 128))
    straight, mirrored = (
        RandomScaleCropFlip((0.75,), (80, 110), flip=p).choose_window(
            np.random.default_rng(1), (64, 128)
        )
        for p in (0.0, 1.0)
    )
    pad = (9, 9, 9)
    assert np.array_equal(
        mirrored.apply_to_image(image[mirrored.input_slices()], pad),
        straight.apply_to_image(image[straight.input_slices()], pad)[:, ::-1],
    )
    assert np.array_equal(
        mirrored.apply_to_label(label[mirrored.input_slices()]),
        straight.apply_to_label(label[straight.input_slices()])[:, ::-1],
    )


def test_small_images_are_padded_and_ignored_there():
    """An image smaller than the crop is padded; its label is 255 in the padding."""
    image, label = data((40, 50))
    window = RandomScaleCropFlip((0.5,), (64, 96), flip=0.0).choose_window(
        np.random.default_rng(0), (40, 50)
    )
    padded, ignored = (
        window.apply_to_image(image[window.input_slices()], (124, 116, 104)),
        window.apply_to_label(label[window.input_slices()]),
    )
    assert padded.shape == (64, 96, 3)
    assert (padded[20:] == (124, 116, 104)).all()
    assert (padded[:, 25:] == (124, 116, 104)).all()
    assert (ignored[20:] == 255).all()
    assert (ignored[:, 25:] == 255).all()
    assert (ignored[:20, :25] < 19).all()


def test_centre_crop():
    image, label = data((40, 50))
    window = RandomScaleCropFlip((1.0,), (20, 70), flip=0.0, crop="centre").choose_window(
        np.random.default_rng(0), (40, 50)
    )
    found = window.apply_to_image(image[window.input_slices()], (0, 0, 0))
    assert np.array_equal(found[:, 10:60], image[10:30])
    assert (found[:, :10] == 0).all()
    assert (window.apply_to_label(label[window.input_slices()])[:, 60:] == 255).all()


def test_labels_keep_their_values():
    label = np.where(np.indices((61, 83)).sum(0) % 2, 3, 17).astype(np.uint8)
    for scale in SCALES:
        window = RandomScaleCropFlip((scale,), (40, 40), flip=0.0).choose_window(
            np.random.default_rng(0), label.shape
        )
        assert set(np.unique(window.apply_to_label(label[window.input_slices()]))) <= {3, 17, 255}


def test_whole_image_is_unchanged():
    image, label = data((33, 47))
    window = WholeImage().choose_window(np.random.default_rng(0), (33, 47))
    assert np.array_equal(window.apply_to_image(image[window.input_slices()], (0, 0, 0)), image)
    assert np.array_equal(window.apply_to_label(label[window.input_slices()]), label)


@pytest.mark.parametrize("crop", ["random", "centre"])
@pytest.mark.parametrize("size", SIZES)
def test_the_place_of_a_window_is_where_its_pixels_are_from(size, crop):
    image, label = data(size)
    image = cv2.GaussianBlur(image, None, 4)  # so that a mean of rounded pixels tells a place
    for scale in SCALES:
        for flip in (0.0, 1.0):
            window = RandomScaleCropFlip((scale,), (60, 80), flip, crop).choose_window(
                np.random.default_rng(5), size
            )
            found = window.apply_to_image(image[window.input_slices()], (0, 0, 0))
            inside = window.apply_to_label(label[window.input_slices()]) != 255
            grid = F.affine_grid(
                torch.from_numpy(window.affine_theta())[None], [1, 1, 60, 80], align_corners=False
            )
            whole = torch.from_numpy(image).permute(2, 0, 1)[None].float()
            sampled = (
                F.grid_sample(whole, grid, padding_mode="border", align_corners=False)[0]
                .permute(1, 2, 0)
                .numpy()
            )
            assert np.abs(sampled - found)[inside].max() < 1
            assert (grid[0].abs().amax(2).numpy() <= 1)[inside].all()


def test_an_image_is_resized_by_means_and_never_written_to():
    image = np.arange(4 * 8 * 3, dtype=np.uint8).reshape(4, 8, 3)
    image.setflags(write=False)
    half = resize_area(image, (2, 4))
    assert np.abs(half - image.reshape(2, 2, 4, 2, 3).mean((1, 3))).max() <= 0.5
    assert resize_area(image, (8, 12)).shape == (8, 12, 3)
    same = resize_area(image, (4, 8))
    assert np.array_equal(same, image)
    same[0, 0] = 255  # a copy
    assert image[0, 0, 0] == 0
