"""Style augmentation of source images: color jitter and blur, on uint8 RGB before any resize.

The transforms that need target images are in style/lab.py and style/fda.py.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from dataset.listing import ImageList
from dataset.segmentation import StyleTransform
from dataset.style.fda import FourierTransfer
from dataset.style.lab import LabTransfer
from dataset.transforms import CropOrigin

GREY = 116.0
"""Center of contrast changes: the mean of natural images."""
_LUMINANCE = np.array([0.299, 0.587, 0.114])
_BLUR_SIGMAS = (0.15, 1.15)


@dataclass(frozen=True)
class RandomApply:
    """Applies ``style`` with ``probability``; else the crop is unchanged."""

    style: StyleTransform
    probability: float

    def __call__(
        self, crop: np.ndarray, origin: CropOrigin, rng: np.random.Generator
    ) -> np.ndarray:
        return self.style(crop, origin, rng) if rng.random() < self.probability else crop


def random_color_matrix(
    rng: np.random.Generator, strength: float = 0.4, hue: float = 0.1
) -> np.ndarray:
    """A random change of brightness, contrast, saturation and hue, as one affine map of RGB.

    Brightness, contrast and saturation are factors from 1 - strength to 1 + strength. Hue rotates
    colors about the grey axis by up to ``hue`` of a full circle either way. Returns (3, 4) float64;
    the last column is the offset.
    """
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3)
    angle = 2 * np.pi * rng.uniform(-hue, hue)
    luminance = np.tile(_LUMINANCE, (3, 1))
    axis = np.full(3, 3**-0.5)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    rotation = (  # Rodrigues' formula
        np.cos(angle) * np.eye(3)
        + np.sin(angle) * cross
        + (1 - np.cos(angle)) * np.outer(axis, axis)
    )
    saturate = saturation * np.eye(3) + (1 - saturation) * luminance
    linear = brightness * contrast * rotation @ saturate
    return np.column_stack([linear, np.full(3, brightness * (1 - contrast) * GREY)])


def random_blur_sigma(rng: np.random.Generator) -> float:
    """A random standard deviation of a Gaussian blur, in pixels.

    The range is that of DACS (Tranheden et al., WACV 2021).
    """
    return float(rng.uniform(*_BLUR_SIGMAS))


RANDOM_CHANGES = {"color_matrix": random_color_matrix, "blur_sigma": random_blur_sigma}
"""The distributions, for methods that change images on the device (model.uda)."""


class ColorJitter:
    """Style transform: random brightness, contrast, saturation and hue."""

    def __call__(
        self, crop: np.ndarray, _origin: CropOrigin, rng: np.random.Generator
    ) -> np.ndarray:
        # cv2.transform rounds, and clips to 0..255.
        return cv2.transform(np.ascontiguousarray(crop), random_color_matrix(rng))


class GaussianBlur:
    """Style transform: Gaussian blur of random strength."""

    def __call__(
        self, crop: np.ndarray, _origin: CropOrigin, rng: np.random.Generator
    ) -> np.ndarray:
        return cv2.GaussianBlur(crop, (0, 0), random_blur_sigma(rng))


def build_style_transforms(
    source: ImageList,
    target: ImageList | None,
    lab: float = 0.0,
    fda: float = 0.0,
    jitter: float = 0.0,
    blur: float = 0.0,
    lab_class_balanced: bool = False,
) -> list[StyleTransform]:
    """Style transforms of ``source``, in order, each with the probability given; 0: left out.

    ``target``: images for ``lab`` and ``fda``, whose labels are never opened; None without these.
    ``lab_class_balanced``: see LabTransfer. Raises ValueError for ``lab`` together with ``fda``,
    and for ``lab_class_balanced`` without ``lab``.
    """
    if lab and fda:
        raise ValueError(
            "Both --lab and --fda were given; the second would undo the colors of the first."
            " Choose one of them."
        )
    if lab_class_balanced and not lab:
        raise ValueError(
            "--lab-class-balanced was given without --lab, on which alone it acts. Add --lab, or"
            " give --no-lab-class-balanced."
        )
    transforms = [
        (lambda: LabTransfer(source, target, lab_class_balanced), lab),
        (lambda: FourierTransfer(target), fda),
        (ColorJitter, jitter),
        (GaussianBlur, blur),
    ]
    return [
        make() if probability == 1 else RandomApply(make(), probability)
        for make, probability in transforms
        if probability
    ]
