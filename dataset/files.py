"""Reading one image or one label from disk, with errors that name the file and the remedy."""

from pathlib import Path

import numpy as np
from PIL import Image

from dataset.labels import IGNORE_INDEX, LAST_LABEL_ID, label_ids_of_colours

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


def _decode(path: Path) -> Image.Image:
    """The decoded file, whole. A truncated one raises: OpenCV would fill the missing part with grey and say nothing."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. The copy of the data set is incomplete, or a list names a file that is not there.")
    try:
        image = Image.open(path)
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be decoded ({error}). It is damaged or cut short: fetch it again, or leave it out.") from error
    return image


def read_image(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB. Raises FileNotFoundError, or ValueError for a damaged file or one that is not 8 bits a channel."""
    image = _decode(path)
    if image.mode not in ("RGB", "RGBA", "L", "LA", "P"):
        raise ValueError(f"{path} has pixel format {image.mode!r}; expected 8 bits a channel. Convert it to an 8-bit RGB PNG or JPEG.")
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def read_label(path: Path) -> np.ndarray:
    """(H, W) uint8 labelIds from palette indices, plain indices or Cityscapes colours, whichever the file holds.

    Palette PNGs (GTA5) are read as indices, never through their palette. Raises FileNotFoundError, or ValueError for a damaged file
    or values that no class has.
    """
    image = _decode(path)
    if image.mode in ("P", "L"):
        label = np.asarray(image)
    elif image.mode in ("RGB", "RGBA"):
        try:
            label = label_ids_of_colours(np.asarray(image)[..., :3])
        except ValueError as error:
            raise ValueError(f"{path} has {error}. Expected labelIds, or the colours of Cityscapes; was it saved as JPEG or resized?") from error
    else:
        raise ValueError(f"{path} has pixel format {image.mode!r}; expected labelIds as a palette or greyscale PNG, or Cityscapes colours.")
    check_label_ids(label, path)
    return label


def check_label_ids(label: np.ndarray, path: Path) -> None:
    """Raises ValueError when ``label`` holds values that are no labelIds (0-34 and 255)."""
    if label.max() > LAST_LABEL_ID:
        unknown = sorted(set(np.unique(label).tolist()) - {*range(LAST_LABEL_ID + 1), IGNORE_INDEX})
        if unknown:
            raise ValueError(
                f"{path} has label values {unknown[:8]}, which are neither labelIds (0-{LAST_LABEL_ID}, 255) nor trainIds. "
                "Expected Cityscapes labelIds; is it an instance map or another data set's label?"
            )


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) from the file's header, without decoding. Raises FileNotFoundError or ValueError like ``read_image``."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. The copy of the data set is incomplete, or a list names a file that is not there.")
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is no image ({error}). It is damaged: fetch it again, or leave it out.") from error
