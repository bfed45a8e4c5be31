"""Changes of look for source images, each with a probability: color jitter and blur. On uint8 RGB,
before any resize.

color_transfer.py and fourier.py have those that look at the target.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from dataset.listing import ImageList
from dataset.segmentation import StyleTransform
from dataset.style.fda import FourierTransfer
from dataset.style.lab import LabTransfer
from dataset.transforms import SourceRegion

GREY = 116.0
"""The value about which contrast changes: the mean of natural images."""
_LUMINANCE = np.array([0.299, 0.587, 0.114])
_BLUR_SIGMAS = (0.15, 1.15)


@dataclass(frozen=True)
class RandomApply:
    """``style`` with ``probability``, else the region as it is."""

    style: StyleTransform
    probability: float

    def __call__(
        self, region: np.ndarray, origin: SourceRegion, rng: np.random.Generator
    ) -> np.ndarray:
        return self.style(region, origin, rng) if rng.random() < self.probability else region


def random_color_matrix(
    rng: np.random.Generator, strength: float = 0.4, hue: float = 0.1
) -> np.ndarray:
    """A random change of brightness, contrast, saturation and hue as one affine map of RGB values:
    (3, 4), the last column the offset.

    Brightness, contrast and saturation are factors from 1 - strength to 1 + strength; hue turns
    colors about the grey axis by up to ``hue`` of a full circle either way.
    """
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3)
    angle = 2 * np.pi * rng.uniform(-hue, hue)
    towards_grey = np.tile(_LUMINANCE, (3, 1))
    axis = np.full(3, 3**-0.5)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn = (
        np.cos(angle) * np.eye(3)
        + np.sin(angle) * cross
        + (1 - np.cos(angle)) * np.outer(axis, axis)
    )  # Rodrigues' formula
    linear = (
        brightness * contrast * turn @ (saturation * np.eye(3) + (1 - saturation) * towards_grey)
    )
    return np.column_stack([linear, np.full(3, brightness * (1 - contrast) * GREY)])


def random_blur_sigma(rng: np.random.Generator) -> float:
    """A random standard deviation of a Gaussian blur, in pixels (the range of DACS, Tranheden et
    al., WACV 2021).
    """
    return float(rng.uniform(*_BLUR_SIGMAS))


class ColorJitter:
    """A style step: brightness, contrast, saturation and hue of the region change at random."""

    def __call__(
        self, region: np.ndarray, _origin: SourceRegion, rng: np.random.Generator
    ) -> np.ndarray:
        return cv2.transform(
            np.ascontiguousarray(region), random_color_matrix(rng)
        )  # rounded and kept within 0..255


class GaussianBlur:
    """A style step: the region is blurred a little."""

    def __call__(
        self, region: np.ndarray, _origin: SourceRegion, rng: np.random.Generator
    ) -> np.ndarray:
        return cv2.GaussianBlur(region, (0, 0), random_blur_sigma(rng))


def build_style_transforms(
    source: ImageList,
    target: ImageList | None,
    lab: float = 0.0,
    fda: float = 0.0,
    jitter: float = 0.0,
    blur: float = 0.0,
    lab_by_class: bool = False,
) -> list[StyleTransform]:
    """The style steps of ``source`` for the probabilities given, in the order in which they are
    taken; 0: not at all.

    ``target``: the images that ``lab`` and ``fda`` look at, whose labels stay closed; it may be
    None without these. ``lab_by_class``: see LabTransfer. Raises ValueError for ``lab`` and ``fda``
    at once, and for ``lab_by_class`` without ``lab``.
    """
    if lab and fda:
        raise ValueError(
            "Both --lab and --fda were given; the second would undo the colors of the first."
            " Choose one of them."
        )
    if lab_by_class and not lab:
        raise ValueError(
            "--lab-by-class was given without --lab, and shapes nothing else. Add --lab, or give"
            " --no-lab-by-class."
        )
    steps = [
        (lambda: LabTransfer(source, target, lab_by_class), lab),
        (lambda: FourierTransfer(target), fda),
        (ColorJitter, jitter),
        (GaussianBlur, blur),
    ]
    return [
        make() if probability == 1 else RandomApply(make(), probability)
        for make, probability in steps
        if probability
    ]
