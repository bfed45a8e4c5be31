"""Reads label files: palette or plain indices, Cityscapes' colors, SYNTHIA's 16-bit channels.

Errors name the file and the remedy.
"""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dataset.image_io import PNG_SIGNATURE, decode, map_array, open_image
from dataset.labels import (
    IGNORE_INDEX,
    LABEL_ID_OF_SYNTHIA,
    LAST_LABEL_ID,
    LAST_SYNTHIA_ID,
    label_ids_of_colors,
    label_ids_of_palette,
)

_LOSSY = ("JPEG", "MPO", "WEBP", "JPEG2000", "AVIF")
_LOSSY_IN_TIFF = ("jpeg", "tiff_jpeg", "webp")
"""Formats, by Pillow's names, in which labels have lost their classes."""


class LabelValuesError(ValueError):
    """Raised for a label file that can be read but holds values other than labelIds."""


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
    image, _ = decode(path)
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
    return header[:8] == PNG_SIGNATURE and is_16_bit_color


def _synthia_label_ids(path: Path) -> np.ndarray:
    """(H, W) uint8 labelIds from the first channel of a SYNTHIA label; the others hold instances.

    Read by OpenCV: Pillow would keep only the upper 8 of 16 bits, which are 0. ``decode`` has
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


def label_size(path: Path) -> tuple[int, int]:
    """(height, width) of a label, from the header of a file; raises ValueError unless a PNG."""
    if path.suffix == ".npy":
        return map_array(path, 2).shape
    with open_image(path) as image:
        _require_png(path, image)
        return image.height, image.width
