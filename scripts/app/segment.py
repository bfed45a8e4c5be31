"""Segments what a visitor sends: an image, a short video, or a camera picture."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset.image_io import IMAGE_SUFFIXES, image_size, read_image
from scripts.app.networks import Network
from utils.benchmark.memory import check_memory
from utils.report.pictures import overlay
from utils.video import VIDEO_SUFFIXES, VideoReader, VideoWriter


class Prediction(NamedTuple):
    """What one network found in an image."""

    name: str
    network: Network
    train_ids: np.ndarray
    seconds: float

    @property
    def shares(self) -> dict[str, float]:
        """The fraction of the pixels of each class, by its name."""
        names = self.network.class_set.names
        counts = np.bincount(self.train_ids.ravel(), minlength=len(names))
        return {
            name: count / self.train_ids.size for name, count in zip(names, counts, strict=True)
        }


def check_suffix(path: Path) -> None:
    """Raises ValueError for a file that is neither image nor video by its name."""
    expected = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
    if path.suffix.lower() not in expected:
        raise ValueError(
            f"No image and no video in {path}. Expected files ending in {', '.join(expected)}."
        )


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def load_image(path: Path, networks: dict[str, Network]) -> np.ndarray:
    """Reads an image as scripts.predict does; raises what it raises."""
    for network in networks.values():
        check_memory(path, image_size(path), network.device)
    return read_image(path)


def segment_image(image: np.ndarray, networks: dict[str, Network]) -> list[Prediction]:
    """The prediction of each network for an image (H, W, 3) uint8 RGB."""
    return [
        Prediction(name, network, *network.segment(image)) for name, network in networks.items()
    ]


class SegmentedVideo(NamedTuple):
    """A video of one network's overlays: an MP4, and the seconds of each frame in the network."""

    name: str
    content: bytes
    seconds: Sequence[float]


class VideoJob:
    """Segments a video frame by frame, so that its visitor can leave at any time.

    Args:
        path: the video.
        networks: by name; each gets a video of overlays.
        opacity: of the class colors, from 0 to 1.
        most_seconds: longest video that is taken.

    Raises what VideoReader raises, and ValueError for a longer video.
    """

    def __init__(
        self, path: Path, networks: dict[str, Network], opacity: float, most_seconds: float
    ):
        self.path, self.networks, self.opacity = path, networks, opacity
        self.reader = VideoReader(path)
        self.most_seconds, self.most_frames = most_seconds, round(most_seconds * self.reader.fps)
        self._require_short(self.reader.frames)
        for network in networks.values():
            check_memory(path, self.reader.size, network.device)
        self.seconds: dict[str, list[float]] = {name: [] for name in networks}
        self.videos: list[SegmentedVideo] = []

    def run(self) -> Iterator[int]:
        """Yields the number of frames so far; afterwards ``videos`` are there."""
        with tempfile.TemporaryDirectory() as folder:
            paths = {name: Path(folder) / f"{n}.mp4" for n, name in enumerate(self.networks)}
            with ExitStack() as stack:
                writers = {
                    name: stack.enter_context(VideoWriter(path, self.reader.fps))
                    for name, path in paths.items()
                }
                for number, frame in enumerate(self.reader, 1):
                    self._require_short(number)  # the header may not tell its length
                    self._write(frame, writers)
                    yield number
            self.videos = [
                SegmentedVideo(name, path.read_bytes(), self.seconds[name])
                for name, path in paths.items()
            ]

    def _write(self, frame: np.ndarray, writers: dict[str, VideoWriter]) -> None:
        for name, network in self.networks.items():
            train_ids, seconds = network.segment(frame)
            self.seconds[name].append(seconds)
            picture = overlay(frame, train_ids, network.class_set.color_table, self.opacity)
            for _ in range(self.reader.repeats):
                writers[name].write(picture)

    def _require_short(self, frames: int) -> None:
        """Raises ValueError for a video that has ``frames`` frames or more, if these last longer
        than ``most_seconds``.
        """
        if frames > self.most_frames:
            raise ValueError(
                f"{self.path} lasts {frames / self.reader.fps:.1f} s or more; this page takes"
                f" {self.most_seconds:g} s at most. Cut it (ffmpeg -t {self.most_seconds:g} -i"
                " INPUT OUTPUT.mp4), or segment all of it: python -m scripts.predict INPUT --model"
                " FILE --output DIR"
            )
