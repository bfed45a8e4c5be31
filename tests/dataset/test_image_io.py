"""The fast PNG decoder accepts only files that Pillow would decode to the same pixels."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from dataset.image_io import image_size, read_image
from dataset.label_io import read_label

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
    commented = PngImagePlugin.PngInfo()
    commented.add_text("Raw profile type exif", "no orientation")
    variants = {
        "plain.png": {},
        "transparent.png": {"transparency": (1, 2, 3)},
        "commented.png": {"pnginfo": commented},
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


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_viewers_do(tmp_path, suffix, orientation):
    """EXIF orientation is applied to images, and ``image_size`` says the size after it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.zeros((40, 56, 3), np.uint8)
    stored[:20, :28] = 250  # a corner, so that all eight differ
    stored[:20, 28:] = 120
    path = tmp_path / f"photo{suffix}"
    Image.fromarray(stored).save(path, exif=exif, **({"quality": 100} if suffix == ".jpg" else {}))
    with Image.open(path) as image:
        shown = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(read_image(path), shown)
    assert image_size(path) == shown.shape[:2]


def test_a_damaged_orientation_is_passed_over(image, tmp_path):
    """A photo whose EXIF note is nonsense is read as it is stored."""
    Image.fromarray(image).save(tmp_path / "x.jpg", exif=b"Exif\0\0nonsense" + bytes(20))
    assert read_image(tmp_path / "x.jpg").shape == image.shape
    assert image_size(tmp_path / "x.jpg") == image.shape[:2]


@pytest.mark.parametrize(
    ("name", "mode", "found"),
    [
        ("x.jpg", "CMYK", "the pixel format CMYK"),
        ("x.png", "1", "1 bit a pixel"),
        ("grey.png", "I;16", "16 bits a channel"),
        ("color.png", None, "16 bits a channel"),
    ],
)
def test_the_header_tells_pixels_that_are_refused(tmp_path, name, mode, found):
    """A check of headers before a run refuses what reading would refuse in the middle of it."""
    if mode is None:
        cv2.imwrite(str(tmp_path / name), np.zeros((4, 6, 3), np.uint16))
    else:
        Image.new(mode, (6, 4)).save(tmp_path / name)
    for read in (read_image, image_size):
        with pytest.raises(ValueError, match=f"{name} has {found}; expected RGB or grey"):
            read(tmp_path / name)


def test_the_pixel_limit_holds_on_both_paths(tmp_path, monkeypatch):
    """An image of too many pixels is refused before it is decoded, by OpenCV and by Pillow."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    picture = Image.fromarray(np.zeros((40, 50, 3), np.uint8))
    for name in ("x.png", "X.PNG", "x.jpg"):
        picture.save(tmp_path / name)
        for read in (read_image, image_size):
            with pytest.raises(ValueError, match=f"{name} has more than .* pixels"):
                read(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC or AVIF .*convert"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"/annex/objects/SHA256E-s9--4d7a.png\n", "git annex get"),
        (b"", "is empty"),
        (b"PK\x03\x04......", "zip archive"),
    ],
)
def test_a_file_of_another_kind_is_called_by_it(tmp_path, content, kind):
    """The error of a file that is no image says what it is, when its beginning tells."""
    (tmp_path / "a.jpg").write_bytes(content)
    for read in (read_image, read_label, image_size):
        with pytest.raises(ValueError, match=rf"(?s)a\.jpg .*{kind}"):
            read(tmp_path / "a.jpg")


def test_a_link_to_nothing_is_called_by_it(tmp_path):
    """What git-annex and DVC leave of files that are not fetched; ls shows it."""
    (tmp_path / "1.png").symlink_to("/annex/objects/x")
    for read in (image_size, read_image, read_label):
        with pytest.raises(FileNotFoundError, match=r"1\.png is a link to /annex/objects/x"):
            read(tmp_path / "1.png")


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
    refused = r"x\.png cannot be decoded .*(damaged or cut short|is empty): fetch"
    for content in (*cuts[:-2], *flipped, *sound_but_short):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=refused):
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
