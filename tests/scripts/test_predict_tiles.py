"""scripts.predict --tile: images too large for one pass."""

import numpy as np
import pytest
from PIL import Image

from model.inference.tiling import tiles
from scripts.predict import __main__ as entry
from tests.conftest import scene
from tests.helpers.networks import write_checkpoint
from utils.benchmark import memory

pytestmark = pytest.mark.usefixtures("narrow_networks")


def run(*words) -> None:
    entry.main(entry.parse_arguments([*map(str, words), "--device", "cpu", "--precision", "fp32"]))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("run") / "last.pt")


@pytest.fixture
def image(tmp_path) -> np.ndarray:
    image = scene(0, (330, 620))[0]
    Image.fromarray(image).save(tmp_path / "x.png")
    return image


def train_ids(folder) -> np.ndarray:
    return np.array(Image.open(folder / "x_trainIds.png"))


def save_train_ids(checkpoint, image_path, output, *words) -> None:
    run(image_path, "--model", checkpoint, "--output", output, "--save", "trainIds", *words)


def test_each_tile_is_segmented_like_an_image(checkpoint, image, tmp_path):
    """The kept part of a tile equals the prediction for the tile alone."""
    save_train_ids(checkpoint, tmp_path / "x.png", tmp_path / "tiled", "--tile", 288)
    found = train_ids(tmp_path / "tiled")
    assert found.shape == (330, 620)
    (tmp_path / "tile").mkdir()
    for number, (region, kept) in enumerate(tiles((330, 620), 288)):
        if number in (0, 7):
            Image.fromarray(image[region]).save(tmp_path / "tile/x.png")
            save_train_ids(checkpoint, tmp_path / "tile/x.png", tmp_path / "out")
            rows, columns = (
                slice(k.start - r.start, k.stop - r.start)
                for k, r in zip(kept, region, strict=True)
            )
            assert np.array_equal(found[kept], train_ids(tmp_path / "out")[rows, columns])


def test_an_image_no_larger_than_a_tile_is_one_pass(checkpoint, image, tmp_path):
    """--tile changes nothing for small images."""
    save_train_ids(checkpoint, tmp_path / "x.png", tmp_path / "whole")
    save_train_ids(checkpoint, tmp_path / "x.png", tmp_path / "tiled", "--tile", 640)
    assert np.array_equal(train_ids(tmp_path / "whole"), train_ids(tmp_path / "tiled"))


def test_tiles_need_less_memory(checkpoint, image, tmp_path, monkeypatch):
    """An image too large for one pass is segmented in tiles if these fit (61 and 31 MB here)."""
    paths = checkpoint, tmp_path / "x.png", tmp_path / "out"
    monkeypatch.setattr(memory, "available_memory", lambda device: 40_000_000)
    with pytest.raises(ValueError, match="--tile 1024"):
        save_train_ids(*paths)
    save_train_ids(*paths, "--tile", 288)
    assert train_ids(tmp_path / "out").shape == (330, 620)
    monkeypatch.setattr(memory, "available_memory", lambda device: 10_000_000)
    with pytest.raises(ValueError, match="cut it into parts"):
        save_train_ids(*paths, "--tile", 288)


@pytest.mark.parametrize("tile", [256, 1000, 0])
def test_tile_sizes_that_do_not_work_are_refused(checkpoint, image, tmp_path, capsys, tile):
    """Tiles must fit the stride of the network and be larger than two margins."""
    with pytest.raises(SystemExit):
        save_train_ids(checkpoint, tmp_path / "x.png", tmp_path / "out", "--tile", tile)
    assert "--tile" in capsys.readouterr().err
