import numpy as np
import pytest

from dataset.cityscapes import cityscapes
from dataset.gta5 import gta5
from dataset.image_io import read_image
from dataset.style.lab import lab_statistics, lab_transfer
from scripts import preview_transfer
from tests.conftest import write_gta5


def draw(source, target, *words) -> None:
    words = ["--source", source, "--target", target, *words]
    preview_transfer.main(preview_transfer.parse_arguments([*map(str, words)]))


def test_four_pictures_a_row(gta5_root, cityscapes_root, tmp_path):
    words = ["--output", tmp_path / "t.png", "--rows", 3, "--width", 136]
    draw(gta5_root, cityscapes_root, *words)
    picture = read_image(tmp_path / "t.png")
    assert picture.shape == (3 * (22 + 72), 4 * 136, 3)
    sources = [read_image(frame.image) for frame in map(gta5(gta5_root).__getitem__, range(6))]
    targets = [
        read_image(frame.image)
        for frame in map(cityscapes(cityscapes_root, "train").__getitem__, range(5))
    ]
    transfers = [
        lab_transfer(s, lab_statistics(s), lab_statistics(t)) for s in sources for t in targets
    ]
    for row in np.split(picture, 3):
        assert any(np.array_equal(row[22:, :136], source) for source in sources)
        assert any(np.array_equal(row[22:, 136:272], transfer) for transfer in transfers)


def test_a_source_and_a_target_of_any_kind(gta5_root, cityscapes_root, tmp_path):
    """--source finds its data set, and --target takes plain images, as in training."""
    words = ["--output", tmp_path / "t.png", "--rows", 1, "--width", 136]
    draw(cityscapes_root, gta5_root / "images", *words)
    assert read_image(tmp_path / "t.png").shape[1:] == (4 * 136, 3)


def test_a_source_of_ones_own_layout(gta5_root, tmp_path, capsys):
    """The file that training takes; a split of images that have none is refused."""
    (gta5_root / "images").rename(gta5_root / "photos")
    layout = tmp_path / "own.toml"
    layout.write_text('[splits.train]\nimages = "photos/{key}.png"\nlabels = "labels/{key}.png"\n')
    target, output = gta5_root / "photos", ["--output", tmp_path / "t.png", "--rows", 1]
    draw(gta5_root, target, "--source-layout", layout, *output)
    assert (tmp_path / "t.png").exists()
    with pytest.raises(SystemExit):
        draw(gta5_root, target, "--split", "val", *output)
    assert "--split: without effect with plain images" in capsys.readouterr().err


def test_an_output_that_cannot_be_written(gta5_root, cityscapes_root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Cannot write into"):
        draw(gta5_root, cityscapes_root, "--output", tmp_path / "file/t.png")


def test_an_output_is_refused_before_the_work(gta5_root, cityscapes_root, tmp_path, capsys):
    """An image of the data, a folder, another format."""
    images = sorted(gta5_root.glob("images/*.png"))
    before = images[0].read_bytes()
    for words in (
        (gta5_root, cityscapes_root, "--output", images[0]),
        (gta5_root, cityscapes_root, "--output", cityscapes_root / "new.png"),
        (cityscapes_root, f"{gta5_root}/images/*.png", "--output", images[0]),
        (cityscapes_root, gta5_root / "images", "--output", images[0]),
    ):
        with pytest.raises(OSError, match="Cannot write .*the input"):
            draw(*words)
    assert images[0].read_bytes() == before
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OSError, match="it is a folder"):
        draw(gta5_root, cityscapes_root, "--output", tmp_path / "folder.png")
    with pytest.raises(SystemExit):
        draw(gta5_root, cityscapes_root, "--output", tmp_path / "t.jpg")
    assert "t.jpg: expected a name that ends with .png" in capsys.readouterr().err


def test_a_width_of_one(cityscapes_root, tmp_path):
    """The height is a pixel at least."""
    root = write_gta5(tmp_path / "wide", 1, (40, 136))
    draw(root, cityscapes_root, "--output", tmp_path / "t.png", "--rows", 1, "--width", 1)
    assert read_image(tmp_path / "t.png").shape == (22 + 1, 4, 3)
