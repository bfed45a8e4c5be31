"""Reads images and labels from disk, with errors that name the file and the remedy.

A prepared ``.npy`` file (scripts/prepare.py) is mapped into memory: only the parts in use are read.
"""

import struct
import zlib
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
)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
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
    if path.suffix != ".png" or not path.is_file():
        return None
    data = path.read_bytes()
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


def _decode(path: Path) -> Image.Image:
    """Decodes a file by Pillow, which raises for a truncated one.

    Raises FileNotFoundError, ValueError.
    """
    if not path.is_file():
        raise FileNotFoundError(ABSENT.format(path))
    try:
        image = Image.open(path)
        image.load()
    except Image.DecompressionBombError as error:
        raise ValueError(TOO_LARGE.format(path)) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be decoded ({error}). It is damaged or cut short: fetch it again, or"
            " leave it out."
        ) from error
    return image


def _is_sixteen_bit_png(path: Path) -> bool:
    """Whether a PNG has 16 bits per channel, of which Pillow silently drops the lower 8."""
    with open(path, "rb") as file:
        head = file.read(25)
    return head.startswith(b"\x89PNG") and head[24] == 16


def read_image(path: Path) -> np.ndarray:
    """Reads an image: (H, W, 3) uint8 RGB.

    Raises FileNotFoundError, or ValueError for a damaged file and for other than 8 bits a channel.
    """
    if path.suffix == ".npy":
        return map_array(path, 3)
    plain = _decode_plain_png(path)
    if plain is not None:
        return plain
    image = _decode(path)
    if _is_sixteen_bit_png(path):
        raise ValueError(
            f"{path} has 16 bits a channel; expected 8 bits a channel. Convert it to an 8-bit RGB"
            " PNG or JPEG."
        )
    if image.mode not in ("RGB", "RGBA", "L", "LA", "P"):
        raise ValueError(
            f"{path} has pixel format {image.mode!r}; expected 8 bits a channel. Convert it to an"
            " 8-bit RGB PNG or JPEG."
        )
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def read_label(path: Path) -> np.ndarray:
    """Reads a label: (H, W) uint8 labelIds.

    The file holds palette indices, plain indices, Cityscapes colors or SYNTHIA's ids. Palette PNGs
    (GTA5) are read as indices, without their palette; 16-bit color PNGs are SYNTHIA's. A prepared
    label was checked when it was prepared. Raises FileNotFoundError, ValueError for a damaged file,
    and LabelValuesError for values of no class.
    """
    if path.suffix == ".npy":
        return map_array(path, 2)
    image = _decode(path)
    if is_synthia_label(path):
        return _synthia_label_ids(path)
    if image.mode in ("P", "L"):
        label = np.asarray(image)
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
            f"{path} has pixel format {image.mode!r}; expected labelIds as a palette or greyscale"
            " PNG, or Cityscapes colors."
        )
    check_label_ids(label, path)
    return label


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
    channels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)  # (H, W, 3 or 4) uint16, blue first
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
    """(height, width) from the header of a file, without decoding.

    Raises FileNotFoundError or ValueError like ``read_image``.
    """
    if path.suffix == ".npy":
        return map_array(path, 3).shape[:2]
    if not path.is_file():
        raise FileNotFoundError(ABSENT.format(path))
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except Image.DecompressionBombError as error:
        raise ValueError(TOO_LARGE.format(path)) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"{path} is no image ({error}). It is damaged: fetch it again, or leave it out."
        ) from error
