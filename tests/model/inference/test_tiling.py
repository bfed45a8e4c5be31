import itertools

import numpy as np
import pytest
import torch
from torch import nn

from model.inference.tiling import MARGIN, STRIDE, in_tiles, tiles

SIZES = [(1, 1), (32, 700), (500, 333), (1024, 2048), (257, 256), (3000, 70)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("tile", "margin"), [(512, 128), (256, 32), (64, 0)])
def test_tiles_keep_each_pixel_once_with_its_margin(size, tile, margin):
    """The kept parts cover the image once, each with ``margin`` pixels of context in the image."""
    covered = np.zeros(size, int)
    for region, kept in tiles(size, tile, margin):
        covered[kept] += 1
        for length, seen, used in zip(size, region, kept, strict=True):
            assert seen.start % STRIDE == 0
            assert 0 < seen.stop - seen.start <= tile
            assert seen.start == max(0, used.start - margin)
            assert min(length, used.stop + margin) <= seen.stop
    assert (covered == 1).all()


def test_a_small_image_is_one_tile():
    (single,) = tiles((500, 400), 512)
    assert single.input == single.kept == (slice(0, 500), slice(0, 400))


@pytest.mark.parametrize(("tile", "margin"), [(500, 128), (512, 100), (256, 128), (0, 0)])
def test_tile_sizes_that_do_not_work_are_refused(tile, margin):
    """Tiles must fit the stride of the network and be larger than two margins."""
    with pytest.raises(ValueError, match="expected multiples of 32"):
        list(tiles((600, 600), tile, margin))


def test_tiles_equal_one_pass_within_the_receptive_field():
    """A network of stride 32 without global average gives the same result in tiles and at once."""
    torch.manual_seed(0)
    channels = (3, 8, 8, 8, 8, 5)
    convs = [nn.Conv2d(i, o, 3, 2, 1, bias=False).double() for i, o in itertools.pairwise(channels)]
    for conv in convs:
        conv.weight.data *= 8  # or every pixel would be of one class
    down = nn.Sequential(*(layer for conv in convs for layer in (conv, nn.Tanh())))
    seen = []

    def segment(image: np.ndarray) -> np.ndarray:
        seen.append(image.shape[:2])
        x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].double() / 127.5 - 1
        with torch.inference_mode():
            scores = nn.functional.interpolate(down(x), scale_factor=32, mode="bilinear")[
                ..., : image.shape[0], : image.shape[1]
            ]
        return scores[0].argmax(0).numpy().astype(np.uint8)

    image = np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8)
    whole = segment(image)
    assert len(np.unique(whole)) > 2
    seen.clear()
    assert np.array_equal(in_tiles(segment, 384, MARGIN)(image), whole)
    assert len(seen) > 9
    assert max(max(size) for size in seen) == 384
