"""Reading one image or one label from disk, with errors that name the file and the remedy.

A ``.npy`` file, as scripts/prepare.py writes them, is mapped into memory: only the parts that are
used are read.
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
    "{} does not exist. The copy of the data set is incomplete, or a list names a file that is not"
    " there."
)
TOO_LARGE = (
    "{} has more than "
    + f"{2 * Image.MAX_IMAGE_PIXELS:,}"
    + " pixels, which are not decoded: cut it into parts. Is it what it says it is?"
)


class LabelValuesError(ValueError):
    """A label file that can be read, with values that are no labelIds."""


def map_array(path: Path, dimensions: int, types: tuple[type, ...] = (np.uint8,)) -> np.ndarray:
    """The array of a prepared file, read-only and mapped. Raises FileNotFoundError, or ValueError
    for a damaged file.
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
    if array.dtype not in types or array.ndim != dimensions:
        raise ValueError(
            f"{path} holds {array.dtype} of shape {array.shape}; expected {dimensions} dimensions"
            f" of {types[0].__name__}. Delete the file and run scripts.prepare again."
        )
    return np.asarray(array)


# Chunks that say nothing about the pixels, or nothing that either decoder heeds: with others
# (palette, transparency, animation, rotation) Pillow decides.
_PLAIN_CHUNKS = {
    b"IHDR",
    b"IDAT",
    b"IEND",
    b"tIME",
    b"gAMA",
    b"sRGB",
    b"cHRM",
    b"bKGD",
    b"pHYs",
    b"tEXt",
    b"zTXt",
    b"iTXt",
}


def _decode_plain_png(path: Path) -> np.ndarray | None:
    """(H, W, 3) uint8 RGB of an 8-bit RGB PNG, in three quarters of Pillow's time; None for any
    other file, and for a damaged one.

    OpenCV fills what is missing of a file with grey and says nothing. So every chunk's checksum is
    compared first.
    """
    if path.suffix != ".png" or not path.is_file():
        return None
    data = path.read_bytes()
    if (
        data[:8] != _PNG_SIGNATURE or data[12:16] != b"IHDR" or data[24:26] != b"\x08\x02"
    ):  # 8 bits, RGB
        return None
    view, place, kind = memoryview(data), 8, b""
    while kind != b"IEND":
        if place + 12 > len(data):
            return None
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 8 + length
        if kind not in _PLAIN_CHUNKS or view[end : end + 4] != zlib.crc32(
            view[place + 4 : end]
        ).to_bytes(4, "big"):
            return None
        place = end + 4
    image = cv2.imdecode(
        np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    )
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _decode(path: Path) -> Image.Image:
    """The decoded file, whole. A truncated one raises: OpenCV would fill the missing part with grey
    and say nothing.
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
    """Pillow drops the lower halves of 16-bit colors without a word."""
    with open(path, "rb") as file:
        head = file.read(25)
    return head.startswith(b"\x89PNG") and head[24] == 16


def read_image(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB. Raises FileNotFoundError, or ValueError for a damaged file or one that
    is not 8 bits a channel.
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
    """(H, W) uint8 labelIds from palette indices, plain indices, Cityscapes colors or SYNTHIA's
    ids, whichever the file holds.

    Palette PNGs (GTA5) are read as indices, never through their palette; 16-bit color PNGs are
    SYNTHIA's. Raises FileNotFoundError, or ValueError for a damaged file or values that no class
    has (LabelValuesError). A prepared label was checked when it was prepared.
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
    """Whether a file is a PNG of 16 bits in two channels or more, as SYNTHIA's labels are and no
    other data set's; from its header.
    """
    with open(path, "rb") as file:
        header = file.read(26)
    return header[:8] == _PNG_SIGNATURE and header[24:] in (
        b"\x10\x02",
        b"\x10\x04",
        b"\x10\x06",
    )  # RGB, grey with alpha, RGB with alpha


def _synthia_label_ids(path: Path) -> np.ndarray:
    """The first channel of SYNTHIA's label (the others tell instances), as labelIds. Pillow keeps
    only the upper 8 of 16 bits, which are 0.
    """
    channels = cv2.imread(
        str(path), cv2.IMREAD_UNCHANGED
    )  # (H, W, 3 or 4) uint16, blue first; _decode has found the file whole
    ids = channels[..., 2]
    if ids.max() > LAST_SYNTHIA_ID:
        unknown = np.unique(ids[ids > LAST_SYNTHIA_ID]).tolist()
        raise LabelValuesError(
            f"{path} has the values {unknown[:8]} in its first channel; expected SYNTHIA's classes"
            f" (0-{LAST_SYNTHIA_ID}). Is it another 16-bit image?"
        )
    return LABEL_ID_OF_SYNTHIA[ids]


def check_label_ids(label: np.ndarray, path: Path) -> None:
    """Raises LabelValuesError when ``label`` holds values that are no labelIds (0-34 and 255)."""
    if label.max() > LAST_LABEL_ID:
        unknown = sorted(set(np.unique(label).tolist()) - {*range(LAST_LABEL_ID + 1), IGNORE_INDEX})
        if unknown:
            raise LabelValuesError(
                f"{path} has label values {unknown[:8]}, which are neither labelIds"
                f" (0-{LAST_LABEL_ID}, 255) nor trainIds. Expected Cityscapes labelIds; is it an"
                " instance map or another data set's label?"
            )


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) from the file's header, without decoding. Raises FileNotFoundError or
    ValueError like ``read_image``.
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
