"""Scores that "Real-time Domain Adaptation in Semantic Segmentation" reports, in percent."""

from typing import NamedTuple


class PublishedRow(NamedTuple):
    """A row of Table II; None and "-" where the paper reports nothing.

    The paper's column "Accuracy" mixes two measures: each value stands here under its own name.
    Parameters and MACs are those of the discriminator, for an input of 19x512x1024.
    """

    name: str
    mean_class_accuracy: float | None
    pixel_accuracy_with_void: float | None
    miou: float
    discriminator_parameters: str
    discriminator_macs: str


TABLE_2 = (
    PublishedRow("BiSeNet-18", None, 79.60, 47.30, "-", "-"),
    PublishedRow("BiSeNet-101", None, 81.60, 59.30, "-", "-"),
    PublishedRow("ADA", 43.02, None, 29.38, "2.78 M", "15.47 GMac"),
    PublishedRow("light ADA", 43.99, None, 30.93, "0.19 M", "1.11 GMac"),
    PublishedRow("light LAB-ADA", 46.90, None, 35.00, "0.19 M", "1.11 GMac"),
)

TABLE_1 = {
    name: tuple(map(float, values.split()))
    for name, values in {
        "ADA": (
            "58.44 27.70 58.24 14.43 16.28 31.22 24.64 10.76 81.09 19.81 62.89 51.59 5.66 66.65"
            " 8.43 7.24 0.01 13.14 0.0"
        ),
        "light ADA": (
            "75.08 30.13 73.11 7.47 14.31 31.48 20.04 8.96 81.93 24.10 66.91 52.63 8.53 53.94"
            " 17.17 11.78 0.0 10.14 0.0"
        ),
        "light LAB-ADA": (
            "87.68 35.40 77.57 19.71 14.61 33.95 21.12 7.77 81.11 27.97 71.91 57.30 3.76 79.57"
            " 17.21 14.68 0.0 13.80 0.0"
        ),
    }.items()
}
"""Table I: the IoU of the 19 classes by trainId."""
