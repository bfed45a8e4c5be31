"""Reads images from disk, with errors that name the file and the remedy.

A prepared ``.npy`` file (scripts/prepare.py) is mapped into memory: only the parts in use are read.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image of an EXIF orientation upright."""
_EXIF_ORIENTATION = 0x0112
_BEGINNINGS = {
    b"<": "a web page, or another text in HTML or XML",
    b"version https://git-lfs": "a pointer of Git LFS (git lfs pull fetches the file)",
    b"/annex/objects": "a pointer of git-annex (git annex get fetches the file)",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF": "a PDF",
}
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

TOO_LARGE = (
    "{} has more than "
    + f"{2 * Image.MAX_IMAGE_PIXELS:,}"
    + " pixels, which are not decoded: cut it into parts. Is it really an image?"
)


def map_array(path: Path, dimensions: int) -> np.ndarray:
    """Maps the array of a prepared file, read-only.

    Raises FileNotFoundError, or ValueError for a damaged file.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path} does not exist. The prepared copy is incomplete: run scripts.prepare again."
        ) from error
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}). It is damaged or cut short: delete it and run"
            " scripts.prepare again."
        ) from error
    if array.dtype != np.uint8 or array.ndim != dimensions:
        raise ValueError(
            f"{path} holds {array.dtype} of shape {array.shape}; expected {dimensions} dimensions"
            " of uint8. Delete the file and run scripts.prepare again."
        )
    return np.asarray(array)


_PLAIN_CHUNKS = {
    *(b"IHDR", b"IDAT", b"IEND", b"tIME", b"gAMA", b"sRGB", b"cHRM", b"bKGD", b"pHYs"),
    *(b"tEXt", b"zTXt", b"iTXt"),
}
"""PNG chunks that change nothing in either decoder.

Files with other chunks (palette, transparency, animation, rotation) are decoded by Pillow.
"""


def _decode_plain_png(path: Path) -> np.ndarray | None:
    """(H, W, 3) uint8 RGB of a sound 8-bit RGB PNG, decoded by OpenCV; None for any other file.

    This takes three quarters of Pillow's time. OpenCV fills missing parts of a file with grey
    without an error, so the checksum of every chunk is compared first.
    """
    if path.suffix.lower() != ".png" or not path.is_file():
        return None
    data = path.read_bytes()
    if data[:8] == PNG_SIGNATURE and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        if width * height > 2 * Image.MAX_IMAGE_PIXELS:
            raise ValueError(TOO_LARGE.format(path))
    is_rgb8 = data[12:16] == b"IHDR" and data[24:26] == b"\x08\x02"
    if data[:8] != PNG_SIGNATURE or not is_rgb8 or not _has_plain_sound_chunks(data):
        return None
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _has_plain_sound_chunks(png: bytes) -> bool:
    """Whether a PNG holds only _PLAIN_CHUNKS, all with correct checksums, up to its end."""
    view, start, kind = memoryview(png), 8, b""
    while kind != b"IEND":
        if start + 12 > len(png):
            return False
        length, kind = struct.unpack_from(">I4s", png, start)
        end = start + 8 + length
        checksum = zlib.crc32(view[start + 4 : end]).to_bytes(4, "big")
        if kind not in _PLAIN_CHUNKS or view[end : end + 4] != checksum:
            return False
        start = end + 4
    return True


def decode(path: Path) -> tuple[Image.Image, int]:
    """Decodes a file by Pillow, which raises for a truncated one; with its EXIF orientation.

    Raises FileNotFoundError, ValueError.
    """
    if not path.is_file():
        raise FileNotFoundError(_absent(path))
    try:
        image = Image.open(path)
        orientation = _orientation(image)
        image.load()
    except Image.DecompressionBombError as error:
        raise ValueError(TOO_LARGE.format(path)) from error
    except PermissionError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be decoded ({error}). {_remedy(path, 'damaged or cut short')}"
        ) from error
    return image, orientation


def _absent(path: Path) -> str:
    """What to say of a file that is not there, or of a link to one."""
    if path.is_symlink():
        return (
            f"{path} is a link to {os.readlink(path)}, where no file is. Fetch that file (git annex"
            " get, dvc pull), connect its disk, or leave the image out."
        )
    return (
        f"{path} does not exist. The copy of the data set is incomplete, or a list names a file"
        " that is missing."
    )


def _remedy(path: Path, otherwise: str) -> str:
    """What a file that is no image is, and what to do."""
    with open(path, "rb") as file:
        head = file.read(64)
    if head[4:8] == b"ftyp":
        kind = head[8:12].decode("latin1").strip()
        formats = "HEIC or AVIF" if kind[:2] in ("he", "mi", "ms", "av") else "a video"
        return f"It is {formats} ({kind}), whatever its name: convert it to JPEG or PNG."
    if not head:
        return "It is empty: fetch it again, or leave it out."
    for beginning, kind in _BEGINNINGS.items():
        if head.lstrip().startswith(beginning):
            return f"It is {kind}: fetch the image itself, or leave it out."
    return f"It is {otherwise}: fetch it again, or leave it out."


def _orientation(image: Image.Image) -> int:
    """EXIF orientation of an opened image, from its header: 1 to 8, 1 for none.

    In a PNG it counts only where it stands before the pixels; else Pillow decodes them to find it.
    """
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except (SyntaxError, ValueError, OSError, KeyError, TypeError, struct.error):
        return 1  # the note is damaged, not the image: viewers pass it over
    return orientation if orientation in _TURN else 1


def _is_sixteen_bit_png(path: Path) -> bool:
    """Whether a PNG has 16 bits per channel, of which Pillow silently drops the lower 8."""
    with open(path, "rb") as file:
        head = file.read(25)
    return head.startswith(b"\x89PNG") and head[24] == 16


def read_image(path: Path) -> np.ndarray:
    """Reads an image: (H, W, 3) uint8 RGB, turned upright by its EXIF orientation.

    Raises FileNotFoundError, or ValueError for a damaged file and for other than 8 bits a channel.
    """
    if path.suffix == ".npy":
        return map_array(path, 3)
    plain = _decode_plain_png(path)
    if plain is not None:
        return plain
    image, orientation = decode(path)
    _require_8_bits(path, image)
    turn = _TURN.get(orientation)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return np.asarray(image if turn is None else image.transpose(turn))


def _require_8_bits(path: Path, image: Image.Image) -> None:
    """Raises ValueError for other pixels than those of ``read_image``, which the header tells."""
    if image.format == "PNG" and _is_sixteen_bit_png(path):
        found = "16 bits a channel"
    elif image.mode not in ("RGB", "RGBA", "L", "LA", "P"):
        found = "1 bit a pixel" if image.mode == "1" else f"the pixel format {image.mode}"
    else:
        return
    raise ValueError(
        f"{path} has {found}; expected RGB or grey with 8 bits a channel. Convert it to an 8-bit"
        " RGB PNG or JPEG."
    )


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of what ``read_image`` returns, from the header of a file.

    Raises FileNotFoundError or ValueError like ``read_image``.
    """
    if path.suffix == ".npy":
        return map_array(path, 3).shape[:2]
    with open_image(path) as image:
        _require_8_bits(path, image)
        turned = _orientation(image) > 4
        return (image.width, image.height) if turned else (image.height, image.width)


def is_turned(path: Path) -> bool:
    """Whether ``read_image`` turns an image upright, from the header of its file.

    False for a file that is missing or no image.
    """
    try:
        with open_image(path) as image:
            return _orientation(image) in _TURN
    except (OSError, ValueError):
        return False


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """Opens an image to read its header. Raises FileNotFoundError, ValueError."""
    if not path.is_file():
        raise FileNotFoundError(_absent(path))
    try:
        image = Image.open(path)
    except Image.DecompressionBombError as error:
        raise ValueError(TOO_LARGE.format(path)) from error
    except PermissionError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is no image ({error}). {_remedy(path, 'damaged')}") from error
    with image:
        yield image
