"""Pictures for people: label maps in colour, images side by side."""

import math

import cv2
import numpy as np

MOST_PANELS = 40
"""Pictures that a run leaves in TensorBoard: about 15 MB."""


def panel_interval(every: int, steps: int, pictures: int) -> int:
    """The interval in steps, at least ``every``, at which ``pictures`` each time and at step 0 make no more than MOST_PANELS a run."""
    return max(every, math.ceil(steps / (MOST_PANELS // pictures - 1)))


def panel(image: np.ndarray, label_maps: list[np.ndarray], colours: np.ndarray, width: int = 512) -> np.ndarray:
    """The image and its label maps side by side, each at most ``width`` wide.

    Args: image (H, W, 3) uint8 RGB; label_maps of (H, W) uint8 trainIds; colours (256, 3) uint8. Returns (h, w, 3) uint8 RGB.
    """
    shrink = min(1.0, width / image.shape[1])
    size = (max(1, round(image.shape[1] * shrink)), max(1, round(image.shape[0] * shrink)))  # OpenCV: (width, height)
    pictures = [cv2.resize(image, size, interpolation=cv2.INTER_AREA)]
    pictures += [colours[cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)] for label in label_maps]
    return np.concatenate(pictures, axis=1)


def captioned(image: np.ndarray, text: str) -> np.ndarray:
    """A copy of an (H, W, 3) uint8 RGB picture with ``text`` on a dark band above it: (H + 22, W, 3)."""
    band = np.full((22, image.shape[1], 3), 24, np.uint8)
    cv2.putText(band, text, (6, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([band, image])


def write_png(path, image: np.ndarray) -> None:
    """Writes an (H, W, 3) uint8 RGB or (H, W) uint8 picture. Raises OSError when it cannot be written."""
    encoded = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)[1]
    with open(path, "wb") as file:  # cv2.imwrite would say nothing about a full disk
        file.write(encoded.tobytes())
