"""Laws of the generated pictures from above."""

import numpy as np
import pytest

from dataset.demo.aerial import BUILDING, ROAD, UNLABELLED, VEGETATION, aerial, drivable
from dataset.demo.scene import LOOKS

SIZE = (96, 128)


def draw(look, seed: int, size=SIZE):
    return aerial(np.random.default_rng(seed), look, size)


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_a_seed_is_a_picture(look):
    """Equal seeds draw equal pictures, other seeds others; sizes are as asked."""
    (image, mask), (again, mask_again) = draw(look, 1), draw(look, 1)
    assert image.shape == (*SIZE, 3)
    assert mask.shape == SIZE
    assert np.array_equal(image, again)
    assert np.array_equal(mask, mask_again)
    assert not np.array_equal(mask, draw(look, 2)[1])


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_three_classes_and_an_edge_occur(look):
    """A few pictures have every value, vegetation and roads on at least a tenth of the pixels."""
    masks = np.stack([draw(look, seed)[1] for seed in range(6)])
    values, counts = np.unique(masks, return_counts=True)
    assert values.tolist() == [UNLABELLED, VEGETATION, ROAD, BUILDING]
    assert (counts[[VEGETATION, ROAD]] > masks.size / 10).all()
    assert np.array_equal(np.unique(drivable(masks)), [0, 255])
    assert np.array_equal(drivable(masks) == 255, masks == ROAD)


def test_the_two_looks_differ_in_color():
    """The gap to adapt over: the source is the more saturated."""
    saturation = [
        np.mean([np.ptp(draw(look, seed)[0].astype(int), axis=2).mean() for seed in range(4)])
        for look in LOOKS.values()
    ]
    assert max(saturation) > 1.3 * min(saturation)


def test_a_size_too_small_is_refused():
    with pytest.raises(ValueError, match="too small to draw"):
        draw(next(iter(LOOKS.values())), 0, (8, 8))
