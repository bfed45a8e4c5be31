"""Reads images and labels from disk, with errors that name the file and the remedy.

A prepared ``.npy`` file (scripts/prepare.py) is mapped into memory: only the parts in use are read.
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dataset.labels import (
    IGNORE_INDEX,
    LABEL_ID_OF_SYNTHIA,
    LAST_LABEL_ID,
    LAST_SYNTHIA_ID,
    label_ids_of_colors,
    label_ids_of_palette,
)

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
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF": "a PDF",
}
_LOSSY = ("JPEG", "MPO", "WEBP", "JPEG2000", "AVIF")
_LOSSY_IN_TIFF = ("jpeg", "tiff_jpeg", "webp")
"""Formats, by Pillow's names, in which labels have lost their classes."""
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

ABSENT = (
    "{} does not exist. The copy of the data set is incomplete, or a list names a file that is"
    " missing."
)
TOO_LARGE = (
    "{} has more than "
    + f"{2 * Image.MAX_IMAGE_PIXELS:,}"
    + " pixels, which are not decoded: cut it into parts. Is it really an image?"
)


class LabelValuesError(ValueError):
    """Raised for a label file that can be read but holds values other than labelIds."""


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
    if data[:8] == _PNG_SIGNATURE and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        if width * height > 2 * Image.MAX_IMAGE_PIXELS:
            raise ValueError(TOO_LARGE.format(path))
    is_rgb8 = data[12:16] == b"IHDR" and data[24:26] == b"\x08\x02"
    if data[:8] != _PNG_SIGNATURE or not is_rgb8 or not _has_plain_sound_chunks(data):
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


def _decode(path: Path) -> tuple[Image.Image, int]:
    """Decodes a file by Pillow, which raises for a truncated one; with its EXIF orientation.

    Raises FileNotFoundError, ValueError.
    """
    if not path.is_file():
        raise FileNotFoundError(ABSENT.format(path))
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

    In PNGs the note counts where it stands before the pixels; Pillow would decode them to find it.
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
    image, orientation = _decode(path)
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


def read_label(path: Path) -> np.ndarray:
    """Reads a label: (H, W) uint8 labelIds.

    The file holds palette indices, plain indices, Cityscapes colors or SYNTHIA's ids. Palette PNGs
    (GTA5) are read as indices, without their palette; 16-bit color PNGs are SYNTHIA's. A prepared
    label was checked when it was prepared. Raises FileNotFoundError, ValueError for a damaged file,
    and LabelValuesError for values of no class.
    """
    if path.suffix == ".npy":
        return map_array(path, 2)
    image = decode_label(path)
    if is_synthia_label(path):
        return _synthia_label_ids(path)
    if image.mode in ("P", "L"):
        label = np.asarray(image)
        if image.mode == "P":
            label = _palette_label_ids(label, image, path)
    elif image.mode in ("RGB", "RGBA"):
        try:
            label = label_ids_of_colors(np.asarray(image)[..., :3])
        except ValueError as error:
            raise LabelValuesError(
                f"{path} has {error}. Expected labelIds, or the colors of Cityscapes; was it saved"
                " as JPEG or resized?"
            ) from error
    else:
        raise ValueError(
            f"{path} has pixel format {image.mode!r}; expected labelIds as a palette or grayscale"
            " PNG, or Cityscapes colors."
        )
    check_label_ids(label, path)
    return label


def decode_label(path: Path) -> Image.Image:
    """Decodes a label file. Raises FileNotFoundError, or ValueError unless it is a sound PNG."""
    image, _ = _decode(path)
    _require_png(path, image)
    return image


def _require_png(path: Path, image: Image.Image) -> None:
    """Raises ValueError for a label in another format; a lossy one puts other classes at edges."""
    if image.format == "PNG":
        return
    if image.format in _LOSSY or image.info.get("compression") in _LOSSY_IN_TIFF:
        raise ValueError(
            f"{path} is a {image.format}; expected a PNG: in a label, lossy compression makes other"
            " classes of the pixels at every edge. Use the original PNG labels; a conversion of"
            " this file would keep the wrong classes."
        )
    raise ValueError(
        f"{path} is a {image.format}; expected a PNG. Save it as PNG, with the same values and"
        " without resizing."
    )


def _palette_label_ids(label: np.ndarray, image: Image.Image, path: Path) -> np.ndarray:
    """(H, W) uint8: the indices themselves, unless the palette's colors say otherwise."""
    palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    try:
        label_ids = label_ids_of_palette(label, palette)
    except ValueError as error:
        raise LabelValuesError(
            f"{path} has {error}. Expected labelIds as indices, or Cityscapes' color of every"
            " class; a tool may have sorted the palette. Save it with the original indices."
        ) from error
    return label if label_ids is None else label_ids


def is_synthia_label(path: Path) -> bool:
    """Whether a file is a 16-bit PNG of two channels or more, as only SYNTHIA's labels are.

    Only the header is read.
    """
    rgb, grey_with_alpha, rgb_with_alpha = b"\x10\x02", b"\x10\x04", b"\x10\x06"
    with open(path, "rb") as file:
        header = file.read(26)
    is_16_bit_color = header[24:] in (rgb, grey_with_alpha, rgb_with_alpha)
    return header[:8] == _PNG_SIGNATURE and is_16_bit_color


def _synthia_label_ids(path: Path) -> np.ndarray:
    """(H, W) uint8 labelIds from the first channel of a SYNTHIA label; the others hold instances.

    Read by OpenCV: Pillow would keep only the upper 8 of 16 bits, which are 0. ``_decode`` has
    already found the file complete.
    """
    content = np.fromfile(path, np.uint8)  # OpenCV opens no name that is not UTF-8
    channels = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)  # (H, W, 3 or 4) uint16, blue first
    ids = channels[..., 2]
    if ids.max() > LAST_SYNTHIA_ID:
        unknown = np.unique(ids[ids > LAST_SYNTHIA_ID]).tolist()
        raise LabelValuesError(
            f"{path} has the values {unknown[:8]} in its first channel; expected SYNTHIA's classes"
            f" (0-{LAST_SYNTHIA_ID}). Is it another 16-bit image?"
        )
    return LABEL_ID_OF_SYNTHIA[ids]


def check_label_ids(label: np.ndarray, path: Path) -> None:
    """Raises LabelValuesError when ``label`` holds values other than labelIds (0-34 and 255)."""
    if label.max() > LAST_LABEL_ID:
        unknown = sorted(set(np.unique(label).tolist()) - {*range(LAST_LABEL_ID + 1), IGNORE_INDEX})
        if unknown:
            raise LabelValuesError(
                f"{path} has label values {unknown[:8]}, which are neither labelIds"
                f" (0-{LAST_LABEL_ID}, 255) nor trainIds. Expected Cityscapes labelIds; is it an"
                " instance map or another data set's label?"
            )


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of what ``read_image`` returns, from the header of a file.

    Raises FileNotFoundError or ValueError like ``read_image``.
    """
    if path.suffix == ".npy":
        return map_array(path, 3).shape[:2]
    with _open(path) as image:
        _require_8_bits(path, image)
        turned = _orientation(image) > 4
        return (image.width, image.height) if turned else (image.height, image.width)


def is_turned(path: Path) -> bool:
    """Whether ``read_image`` turns an image upright, from the header of its file.

    False for a file that is missing or no image.
    """
    try:
        with _open(path) as image:
            return _orientation(image) in _TURN
    except (OSError, ValueError):
        return False


def label_size(path: Path) -> tuple[int, int]:
    """(height, width) of a label, from the header of a file; raises ValueError unless a PNG."""
    if path.suffix == ".npy":
        return map_array(path, 2).shape
    with _open(path) as image:
        _require_png(path, image)
        return image.height, image.width


@contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    """Opens an image to read its header. Raises FileNotFoundError, ValueError."""
    if not path.is_file():
        raise FileNotFoundError(ABSENT.format(path))
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
