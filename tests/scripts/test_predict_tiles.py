"""scripts/predict.py --tile: images too large for one pass."""

import numpy as np
import pytest
from PIL import Image

from model.inference.tiling import tiles
from scripts import predict as entry
from tests.conftest import scene
from tests.helpers.networks import write_checkpoint


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


def test_tiles_are_what_the_network_says_of_each_window(checkpoint, image, tmp_path):
    run(
        tmp_path / "x.png",
        "--model",
        checkpoint,
        "--output",
        tmp_path / "tiled",
        "--save",
        "trainIds",
        "--tile",
        288,
    )
    found = train_ids(tmp_path / "tiled")
    assert found.shape == (330, 620)
    for number, (region, kept) in enumerate(tiles((330, 620), 288)):
        if number in (0, 7):
            (tmp_path / "window").mkdir(exist_ok=True)
            Image.fromarray(image[region]).save(tmp_path / "window/x.png")
            run(
                tmp_path / "window/x.png",
                "--model",
                checkpoint,
                "--output",
                tmp_path / "out",
                "--save",
                "trainIds",
            )
            rows, columns = (
                slice(k.start - i.start, k.stop - i.start)
                for k, i in zip(kept, region, strict=True)
            )
            assert np.array_equal(found[kept], train_ids(tmp_path / "out")[rows, columns])


def test_an_image_no_larger_than_a_tile_is_one_pass(checkpoint, image, tmp_path):
    for name, more in (("whole", ()), ("tiled", ("--tile", 640))):
        run(
            tmp_path / "x.png",
            "--model",
            checkpoint,
            "--output",
            tmp_path / name,
            "--save",
            "trainIds",
            *more,
        )
    assert np.array_equal(train_ids(tmp_path / "whole"), train_ids(tmp_path / "tiled"))


def test_what_is_too_large_for_one_pass_fits_in_tiles(checkpoint, image, tmp_path, monkeypatch):
    words = [
        tmp_path / "x.png",
        "--model",
        checkpoint,
        "--output",
        tmp_path / "out",
        "--save",
        "trainIds",
    ]
    monkeypatch.setattr(
        entry, "available_memory", lambda device: 40_000_000
    )  # a pass takes 61 MB, in tiles 31
    with pytest.raises(ValueError, match="--tile 1024"):
        run(*words)
    run(*words, "--tile", 288)
    assert train_ids(tmp_path / "out").shape == (330, 620)
    monkeypatch.setattr(entry, "available_memory", lambda device: 10_000_000)
    with pytest.raises(ValueError, match="cut it into parts"):
        run(*words, "--tile", 288)


@pytest.mark.parametrize("tile", [256, 1000, 0])
def test_tiles_that_fit_no_grid_or_keep_nothing(checkpoint, image, tmp_path, capsys, tile):
    with pytest.raises(SystemExit):
        run(tmp_path / "x.png", "--model", checkpoint, "--output", tmp_path / "out", "--tile", tile)
    assert "--tile" in capsys.readouterr().err
