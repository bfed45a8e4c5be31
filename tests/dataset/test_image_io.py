"""The fast PNG decoder accepts only files that Pillow would decode to the same pixels."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from dataset.image_io import read_image

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(image: np.ndarray, extra: bytes = b"", pixel_data: bytes | None = None) -> bytes:
    """A PNG file made by hand, with ``extra`` chunks or other ``pixel_data``."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 8, 2, 0, 0, 0))
    lines = zlib.compress(b"".join(b"\0" + line.tobytes() for line in image))
    return (
        SIGNATURE
        + header
        + extra
        + chunk(b"IDAT", lines if pixel_data is None else pixel_data)
        + chunk(b"IEND", b"")
    )


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)


@pytest.fixture
def no_pillow(monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("Pillow was asked")

    monkeypatch.setattr("dataset.image_io.Image.open", refuse)


EXTRAS = {
    "nothing": b"",
    "gamma": chunk(b"gAMA", struct.pack(">I", 200_000)),
    "sRGB and background": chunk(b"sRGB", b"\0") + chunk(b"bKGD", b"\0\1\0\2\0\3"),
}


@pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS)
def test_plain_files_are_read_quickly_and_exactly(image, tmp_path, no_pillow, extra):
    (tmp_path / "x.png").write_bytes(png(image, extra))
    assert np.array_equal(read_image(tmp_path / "x.png"), image)


def test_all_that_pillow_writes_is_what_pillow_reads(image, tmp_path):
    picture = Image.fromarray(image)
    exif, rotated = Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x0112] = 6  # OpenCV would turn such an image
    variants = {
        "plain.png": {},
        "rotated.png": {"exif": exif},
        "transparent.png": {"transparency": (1, 2, 3)},
        "commented.png": {"pnginfo": rotated},
        "small.jpg": {"quality": 95},
    }
    for name, options in variants.items():
        picture.save(tmp_path / name, **options)
        assert np.array_equal(
            read_image(tmp_path / name), np.asarray(Image.open(tmp_path / name).convert("RGB"))
        ), name
    for mode in ("L", "LA", "P", "RGBA"):
        picture.convert(mode).save(tmp_path / "mode.png")
        assert np.array_equal(
            read_image(tmp_path / "mode.png"),
            np.asarray(Image.open(tmp_path / "mode.png").convert("RGB")),
        ), mode


def test_on_real_frames(real_data):
    paths = sorted((real_data / "frames").glob("*/images/*.png")) + sorted(
        (real_data / "frames/cityscapes/leftImg8bit").rglob("*.png")
    )
    assert len(paths) == 8
    for path in paths[::3]:
        assert np.array_equal(read_image(path), np.asarray(Image.open(path)))


def test_no_damage_is_read_as_an_image(image, tmp_path):
    whole, path = png(image), tmp_path / "x.png"
    cuts = [
        whole[:length]
        for length in (0, 7, 8, 20, 33, 60, len(whole) // 2, len(whole) - 12, len(whole) - 1)
    ]
    flipped = [
        whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        for place in (30, 50, len(whole) // 2, len(whole) - 20)
    ]
    lines = zlib.compress(image[:20].tobytes())
    sound_but_short = [
        png(image, pixel_data=lines),
        png(image, pixel_data=zlib.compress(image.tobytes())[:500]),
    ]
    for content in (*cuts[:-2], *flipped, *sound_but_short):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.png cannot be decoded .*damaged or cut short"):
            read_image(path)


def test_a_big_stream_of_many_chunks(tmp_path, no_pillow):
    image = np.random.default_rng(1).integers(0, 256, (300, 400, 3)).astype(np.uint8)
    pixel_data = zlib.compress(b"".join(b"\0" + line.tobytes() for line in image))
    pieces = [pixel_data[start : start + 8192] for start in range(0, len(pixel_data), 8192)]
    content = io.BytesIO()
    content.write(SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 400, 300, 8, 2, 0, 0, 0)))
    for piece in pieces:
        content.write(chunk(b"IDAT", piece))
    content.write(chunk(b"IEND", b""))
    (tmp_path / "x.png").write_bytes(content.getvalue())
    assert len(pieces) > 10
    assert np.array_equal(read_image(tmp_path / "x.png"), image)
