"""Segmentation of image files."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dataset.image_io import image_size, read_image
from scripts.predict.drawing import Results, render
from scripts.predict.network import NamedNetwork
from utils.files import output_names, write_png


def predict_images(
    network: NamedNetwork, paths: list[Path], results: Results, is_only_input: bool
) -> int:
    """Writes one file for each image and each kind of --save; returns the number of images."""
    seconds = []
    stems = output_names(paths)
    for path, image in read_images(paths, network, is_only_input):
        start = time.perf_counter()
        train_ids = network.segment(image)
        seconds.append(time.perf_counter() - start)
        for kind in results.kinds:
            picture = render(kind, image, train_ids, network.class_set, results.has_legend)
            write_png(results.folder / f"{stems[path]}_{kind}.png", picture)
    if seconds:
        print(
            f"{len(seconds)} images into {results.folder}: {1 / np.median(seconds):.1f} frames per"
            " second, reading and writing not counted."
        )
    return len(seconds)


def read_images(
    paths: list[Path], network: NamedNetwork, is_only_input: bool = False
) -> Iterator[tuple[Path, np.ndarray]]:
    """Yields (path, image), with a progress bar; skips unreadable images with a warning, and those
    that are too large for ``network``.

    ``is_only_input``: the error is raised instead, since there is nothing else to segment.
    """
    for path in tqdm(paths, unit="image", disable=True if len(paths) < 2 else None):
        try:
            network.require_memory(path, image_size(path))
            image = read_image(path)
        except (OSError, ValueError) as error:
            if is_only_input:
                raise
            tqdm.write(f"WARNING: skipped: {error}")
            continue
        yield path, image


def none_read(count: int, kind: str) -> ValueError:
    """The error of a run that could read none of ``count`` inputs."""
    return ValueError(f"None of the {count} {kind} could be read; the warnings above say why.")
