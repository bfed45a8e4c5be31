"""Draws what the networks of a comparison predict, as small pictures for the report."""

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dataset.class_set_file import recorded_class_set
from dataset.image_io import read_image
from dataset.listing import ImageList
from model.inference.predictor import load_predictor
from utils.files import output_folder, output_names, write_file
from utils.report.html import ImageRow, Picture
from utils.report.label_free import last_of_runs
from utils.report.pictures import resize_to_width
from utils.training.checkpoint import read_checkpoint
from utils.training.precision import PRECISIONS

MAX_SHOWN = 6
"""Candidates in the pictures of a report without labels."""
MAX_WIDTH = 512
"""Of a picture in the report, in pixels."""


def encode_label_map(train_ids: np.ndarray, colors: np.ndarray) -> bytes:
    """Encodes an (H, W) map of trainIds as a PNG in the ``colors`` (256, 3) of the classes."""
    width = min(MAX_WIDTH, train_ids.shape[1])
    picture = Image.fromarray(resize_to_width(train_ids, width))
    picture.putpalette(colors.tobytes())
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return file.getvalue()


def encode_image(image: np.ndarray) -> bytes:
    """Encodes an (H, W, 3) uint8 RGB image as a JPEG."""
    picture = Image.fromarray(resize_to_width(image, min(MAX_WIDTH, image.shape[1])))
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=85)
    return file.getvalue()


def picture_names(listing: ImageList, indices: Sequence[int]) -> list[str]:
    """A name for the pictures of each image: the last part of its own, the whole if not unique."""
    lasts = Counter(name.rsplit("/", 1)[-1] for name in listing.names)
    names = [(name, name.rsplit("/", 1)[-1]) for name in listing.names_of(indices)]
    return [last if lasts[last] == 1 else name.replace("/", "_") for name, last in names]


def draw_pictures(
    folder: Path,
    listing: ImageList,
    indices: Sequence[int],
    checkpoints: dict[str, Path],
    device: torch.device,
    precision: str,
) -> None:
    """Writes ``folder``/IMAGE/ with image.jpg, truth.png and RUN.png, the prediction of each run.

    ``checkpoints``: {folder of a run: its checkpoint}; absent ones are skipped. Predictions that
    are not older than their checkpoint are kept.
    """
    frames, colors = [listing[index] for index in indices], listing.class_set.color_table
    folders = [output_folder(folder / name) for name in picture_names(listing, indices)]
    for frame, image_folder in zip(frames, folders, strict=True):
        write_file(image_folder / "image.jpg", encode_image(read_image(frame.image)))
        truth = listing.label_format.read_train_ids(frame.label)
        write_file(image_folder / "truth.png", encode_label_map(truth, colors))
    for run, checkpoint in checkpoints.items():
        files = [image_folder / f"{run}.png" for image_folder in folders]
        if not checkpoint.exists() or all(is_current(file, checkpoint) for file in files):
            continue
        content, dtype = read_checkpoint(checkpoint), PRECISIONS[precision]
        predictor = load_predictor(content, len(listing.class_set), device, dtype)
        for frame, file in zip(frames, files, strict=True):
            prediction = predictor.segment(read_image(frame.image))
            write_file(file, encode_label_map(prediction, colors))


def is_current(file: Path, source: Path) -> bool:
    """Whether ``file`` exists and is not older than ``source``."""
    return file.exists() and file.stat().st_mtime_ns >= source.stat().st_mtime_ns


def read_pictures(folder: Path, images: list[str], names: dict[str, str]) -> list[ImageRow]:
    """Reads the files of ``draw_pictures`` for ``images``; rows in the order of ``names``."""
    captions = {"image.jpg": "image", "truth.png": "ground truth"}
    captions |= {f"{run}.png": name for run, name in names.items()}
    rows = []
    for image in images:
        pictures = [
            Picture(caption, (folder / image / file).read_bytes())
            for file, caption in captions.items()
            if (folder / image / file).exists()
        ]
        rows.append(ImageRow(image.removesuffix("_leftImg8bit"), pictures))
    return rows


def shown_candidates(selection: dict[str, Any]) -> dict[str, Path]:
    """{name: checkpoint} of the candidates in pictures: the last of each run."""
    return {row["name"]: Path(row["checkpoint"]) for row in last_of_runs(selection)[:MAX_SHOWN]}


def draw_without_labels(
    selection: dict[str, Any], count: int, device: torch.device, precision: str
) -> list[ImageRow]:
    """Predictions of ``shown_candidates`` on ``count`` images at most that still exist."""
    files = [Path(file) for file in selection["pictures"] if Path(file).is_file()][:count]
    images = {file: read_image(file) for file in files}
    class_set = recorded_class_set(selection)
    rows = [
        ImageRow(name, [Picture("image", encode_image(images[file]))])
        for file, name in output_names(files).items()
    ]
    for name, checkpoint in shown_candidates(selection).items():
        if not files or not checkpoint.is_file():
            continue
        content, dtype = read_checkpoint(checkpoint), PRECISIONS[precision]
        predictor = load_predictor(content, len(class_set), device, dtype)
        for row, file in zip(rows, files, strict=True):
            prediction = predictor.segment(images[file])
            row.pictures.append(Picture(name, encode_label_map(prediction, class_set.color_table)))
    return rows
