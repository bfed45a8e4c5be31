import cv2
import numpy as np
import pytest

from dataset.gta5 import gta5
from dataset.image_io import read_image
from dataset.label_io import read_label
from dataset.labels import TRAIN_ID_OF
from dataset.style.lab import (
    ChannelStatistics,
    LabStatistics,
    LabTransfer,
    channel_statistics,
    class_balanced_lab_statistics,
    lab_statistics,
    lab_to_rgb,
    lab_transfer,
    rgb_transfer,
)
from dataset.transforms import CropOrigin
from scripts.baselines import whole_image_lab


def picture(seed: int, size=(60, 90)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 9, 3)).astype(np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def test_equals_the_reference_transfer_bit_for_bit():
    for seed in range(20):
        source, target = picture(seed), picture(100 + seed, (40, 50))
        found = lab_transfer(source, lab_statistics(source), lab_statistics(target))
        assert np.array_equal(found, whole_image_lab(source, target))


def test_equals_the_reference_transfer_on_real_frames(real_data):
    sources = sorted((real_data / "frames/gta5/images").glob("*.png"))
    targets = sorted((real_data / "frames/cityscapes/leftImg8bit/train").rglob("*.png"))
    for source_path, target_path in zip(sources, targets, strict=False):
        source, target = read_image(source_path), read_image(target_path)
        assert np.array_equal(
            lab_transfer(source, lab_statistics(source), lab_statistics(target)),
            whole_image_lab(source, target),
        )


@pytest.mark.parametrize("size", [(400, 600), (1024, 2048)])
def test_large_images_convert_as_opencv_does(size):
    """The table of colors gives OpenCV's conversion bit for bit, in and out of the RGB gamut."""
    lab = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    assert np.array_equal(lab_to_rgb(lab), cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))
    crop = lab[3:-5, 7:-11]
    assert np.array_equal(lab_to_rgb(crop), cv2.cvtColor(crop, cv2.COLOR_LAB2RGB))


def test_table_is_the_formula_of_eq_6():
    source = ChannelStatistics(np.array([100.0, 128.3, 127.25]), np.array([30.5, 4.0, 0.01]))
    target = ChannelStatistics(np.array([80.2, 120.5, 131.0]), np.array([41.7, 3.3, 6.5]))
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    mapped = ((lab - source.mean) * target.std) / source.std + target.mean
    expected = cv2.cvtColor(np.clip(mapped, 0, 255).round().astype(np.uint8), cv2.COLOR_LAB2RGB)
    assert np.array_equal(lab_transfer(image, source, target), expected)


def test_a_transfer_onto_itself_changes_nothing_in_lab():
    image = picture(3)
    statistics = channel_statistics(image)
    assert np.array_equal(rgb_transfer(image, statistics, statistics), image)
    lab = lab_statistics(image)
    unchanged = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2LAB), cv2.COLOR_LAB2RGB)
    assert np.array_equal(lab_transfer(image, lab, lab), unchanged)


def test_statistics_move_to_the_target():
    source, target = picture(1) // 2 + 60, picture(2) // 2 + 40
    moved = lab_statistics(lab_transfer(source, lab_statistics(source), lab_statistics(target)))
    wanted = lab_statistics(target)
    assert np.abs(moved.mean - wanted.mean).max() < 3
    assert np.abs(moved.std - wanted.std).max() < 3


def test_a_flat_channel_becomes_the_targets_mean():
    grey, target = np.full((8, 8, 3), 90, np.uint8), picture(5)
    assert (lab_statistics(grey).std == 0).all()
    found = lab_transfer(grey, lab_statistics(grey), lab_statistics(target))
    expected = np.round(lab_statistics(target).mean).astype(np.uint8)
    assert np.array_equal(
        found, cv2.cvtColor(np.full((8, 8, 3), expected, np.uint8), cv2.COLOR_LAB2RGB)
    )


def test_transfer_of_a_crop_is_the_crop_of_the_transfer():
    source, target = lab_statistics(picture(1)), lab_statistics(picture(2))
    whole = lab_transfer(picture(1), source, target)
    for crop in (np.s_[7:31, 13:59], np.s_[59:, 1:2], np.s_[:1, 33:]):
        assert np.array_equal(lab_transfer(picture(1)[crop], source, target), whole[crop])


def test_statistics_are_rounded_and_population():
    image = picture(9)
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float64)
    found = lab_statistics(image)
    assert np.abs(found.mean - lab.mean(0)).max() <= 0.00501
    assert np.abs(found.std - lab.std(0, ddof=0)).max() <= 0.00501
    assert np.array_equal(found.mean, np.round(found.mean, 2))


def test_statistics_by_class_are_those_of_equal_areas():
    image = picture(3)
    train_ids = np.full(image.shape[:2], 255, np.uint8)
    train_ids[:20], train_ids[20:25], train_ids[25, 0] = (
        10,
        0,
        11,
    )  # much sky, little road, a speck of a person
    balanced = np.concatenate([np.tile(image[20:25], (4, 1, 1)), image[:20]])
    found, expected = class_balanced_lab_statistics(image, train_ids), lab_statistics(balanced)
    np.testing.assert_allclose(found.mean, expected.mean, atol=0.011)
    np.testing.assert_allclose(found.std, expected.std, atol=0.011)
    assert np.abs(found.mean - lab_statistics(image).mean).max() > 0.5


def test_class_balanced_statistics_without_classes():
    """Without labelled pixels, class-balanced statistics are the plain ones."""
    image = picture(4)
    for own, by_class in zip(
        lab_statistics(image),
        class_balanced_lab_statistics(image, np.full(image.shape[:2], 255, np.uint8)),
        strict=True,
    ):
        assert np.array_equal(own, by_class)


def test_the_style_takes_the_sources_statistics_by_class(gta5_root):
    listing = gta5(gta5_root)
    image = read_image(listing[2].image)
    style = LabTransfer(listing, listing, class_balanced=True)
    found = style(image, CropOrigin(2, image, np.s_[:, :]), np.random.default_rng(0))
    target = int(np.random.default_rng(0).integers(len(listing)))
    statistics = class_balanced_lab_statistics(image, TRAIN_ID_OF[read_label(listing[2].label)])
    expected = lab_transfer(image, statistics, lab_statistics(read_image(listing[target].image)))
    assert np.array_equal(found, expected)
    assert not np.array_equal(
        found,
        LabTransfer(listing, listing)(
            image, CropOrigin(2, image, np.s_[:, :]), np.random.default_rng(0)
        ),
    )


def test_the_style_draws_every_target_and_measures_each_once(gta5_root, monkeypatch):
    listing, reads = gta5(gta5_root), []
    monkeypatch.setattr(
        "dataset.style.lab.read_image", lambda path: reads.append(path) or read_image(path)
    )
    style, rng = LabTransfer(listing, listing), np.random.default_rng(0)
    image = read_image(listing[2].image)
    looks = {
        style(image[:8, :8], CropOrigin(2, image, np.s_[:8, :8]), rng).tobytes() for _ in range(60)
    }
    assert len(looks) == len(listing)
    assert len(reads) == len(set(reads)) <= len(listing)
    assert LabStatistics(listing).of(1).mean == pytest.approx(
        lab_statistics(read_image(listing[1].image)).mean
    )
