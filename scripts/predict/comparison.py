"""One picture that shows the predictions of several networks side by side."""

from pathlib import Path

import numpy as np

from dataset.evenly import evenly
from dataset.image_io import image_size
from scripts.predict.ground_truth import draw_label, find_labels, format_of_labels
from scripts.predict.images import none_read, read_images
from scripts.predict.network import NamedNetwork
from utils.files import write_png
from utils.report.pictures import grid_gap, grid_size, image_grid, in_grid_size, with_legend

COMPARISON_HEIGHT = 32_000
"""Largest height of the rows of comparison.png in pixels: viewers still open such a picture."""


def compare(
    networks: list[NamedNetwork],
    paths: list[Path],
    label_folder: Path | None,
    output: Path,
    has_legend: bool = True,
) -> None:
    """Writes the picture ``output``: a row for each image; columns: image, label, each network.

    ``label_folder``: ground truth, searched by the names of the images; None: no such column. Of
    more images than fit into COMPARISON_HEIGHT, evenly spaced ones are drawn. Each picture is
    resized at once, so that memory does not grow with the size of the images.
    """
    class_set = networks[0].class_set
    has_labels, rows = label_folder is not None, []
    if has_labels:
        labels = find_labels(label_folder, paths)
        label_format = format_of_labels(class_set, list(labels.values()), label_folder)
    titles = ["image", *(["ground truth"] if has_labels else []), *(n.name for n in networks)]
    width = int(np.clip(2400 // len(titles), 256, 640))
    drawn = evenly_spaced(paths, [height_in_grid(path, width) for path in paths], COMPARISON_HEIGHT)
    for path, image in read_images(drawn, networks[0], len(paths) == 1):
        row = [image]
        if has_labels:
            row.append(draw_label(labels.get(path), image, label_format))
        row += (class_set.color_table[network.segment(image)] for network in networks)
        rows.append([in_grid_size(picture, width) for picture in row])
    if not rows:
        raise none_read(len(drawn), "images")
    picture = image_grid(rows, titles, width=width)
    if has_legend:
        picture = with_legend(picture, class_set.names, class_set.color_table)
    write_png(output, picture)
    count = f"{len(rows)} images"
    if len(drawn) < len(paths):
        count = f"{len(rows)} of {len(paths)} images, evenly spaced"
    print(f"{count}, {len(networks)} networks: {output}")


def height_in_grid(path: Path, width: int) -> int:
    """Height of the row of an image in ``image_grid``, by its header; 0 if it cannot be read."""
    try:
        return grid_size(image_size(path), width)[0] + grid_gap(width)
    except (OSError, ValueError):  # read_images says why
        return 0


def evenly_spaced(paths: list[Path], heights: list[int], most: int) -> list[Path]:
    """As many of ``paths``, evenly spaced, as have ``most`` as the sum of their heights; one at
    least.
    """
    count, height = len(paths), sum(heights)
    while height > most and count > 1:
        count = max(1, min(count - 1, int(count * most / height)))
        height = sum(evenly(heights, count))
    return evenly(paths, count)
