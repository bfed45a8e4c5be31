import numpy as np
import pytest

from dataset.gta5 import gta5
from dataset.label_format import LabelFormat
from dataset.label_io import read_label
from dataset.labels import TRAIN_ID_OF
from dataset.listing import PreparedStatistics
from dataset.sampling import RareClassIndex, class_pixels

PIXELS = np.array([[90, 10, 0], [100, 0, 0], [99, 0, 1], [100, 0, 0]])


def test_pixels_are_counted_by_class(gta5_root):
    listing = gta5(gta5_root)
    counts = class_pixels(listing)
    assert counts.shape == (6, 19)
    assert counts[2, 8] == (TRAIN_ID_OF[read_label(listing[2].label)] == 8).sum() > 0


def test_a_prepared_root_is_not_read_again(gta5_root, monkeypatch):
    listing = gta5(gta5_root)
    known = np.arange(6 * 20).reshape(6, 20)
    listing.statistics = PreparedStatistics(np.zeros((6, 2, 3)), known)
    monkeypatch.setattr(LabelFormat, "read", lambda *_: pytest.fail("a label was read"))
    assert np.array_equal(class_pixels(listing), known[:, :19])


def test_rare_classes_are_drawn_more_often():
    """First a class, then one of its pixels: images that show more of it come more often."""
    pixels = np.array([[90, 9, 0], [100, 1, 0], [99, 0, 1], [100, 0, 0]])
    order = RareClassIndex(pixels, seed=0, rng_stream=0, temperature=0.5)
    drawn = np.bincount([order(position) for position in range(4000)], minlength=4) / 4000
    wish = np.exp((1 - pixels.sum(0) / pixels.sum()) / 0.5)
    assert drawn == pytest.approx(pixels / pixels.sum(0) @ (wish / wish.sum()), abs=0.03)


def test_a_function_of_seed_stream_and_position():
    def first(seed, rng_stream):
        order = RareClassIndex(PIXELS, seed, rng_stream)
        return [order(position) for position in range(40)]

    assert first(0, 0) == first(0, 0)
    assert len({tuple(first(*key)) for key in ((0, 0), (1, 0), (0, 1))}) == 3
    assert RareClassIndex(PIXELS, 0, 0)(17) == first(0, 0)[17]  # whatever was asked before


def test_a_temperature_near_0_does_not_overflow():
    order = RareClassIndex(PIXELS, 0, 0, temperature=1e-4)
    assert {order(position) for position in range(20)} == {2}


def test_labels_without_any_class():
    with pytest.raises(ValueError, match="None of the 4 labels"):
        RareClassIndex(PIXELS * 0, 0, 0)
