"""Segmentation of video files and of what a camera films."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from tqdm import tqdm

from scripts.predict.drawing import Results, render
from scripts.predict.network import NamedNetwork
from utils.training.signals import StopRequest
from utils.video import Camera, VideoReader, VideoWriter, due_frames


class PredictionVideos:
    """Segments frames and writes one MP4 for each kind of --save.

    A context; the files appear at its end. Frames and pictures are (H, W, 3) uint8 RGB.
    """

    def __init__(self, network: NamedNetwork, stem: str, fps: float, results: Results):
        self.seconds: list[float] = []  # of each frame, in the network
        self._network, self._fps, self._has_legend = network, fps, results.has_legend
        self._writers = {
            kind: VideoWriter(results.folder / f"{stem}_{kind}.mp4", fps) for kind in results.kinds
        }
        self._stack = ExitStack()

    def __enter__(self) -> "PredictionVideos":
        for writer in self._writers.values():
            self._stack.enter_context(writer)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)

    def segment(self, frame: np.ndarray) -> np.ndarray:
        """(H, W, 3) -> (H, W) uint8 trainIds; the time is measured."""
        start = time.perf_counter()
        train_ids = self._network.segment(frame)
        self.seconds.append(time.perf_counter() - start)
        return train_ids

    def due(self, elapsed_s: float) -> int:
        """How often a video of ``elapsed_s`` seconds needs the next frame."""
        return due_frames(elapsed_s, self._fps, next(iter(self._writers.values())).written)

    def write(self, frame: np.ndarray, train_ids: np.ndarray, repeats: int) -> None:
        """Writes a frame ``repeats`` times."""
        for kind, writer in self._writers.items():
            if repeats:
                class_set = self._network.class_set
                picture = render(kind, frame, train_ids, class_set, self._has_legend)
            for _ in range(repeats):
                writer.write(picture)

    def print_summary(self, not_counted: str) -> None:
        files = ", ".join(str(writer.path) for writer in self._writers.values())
        print(
            f"{len(self.seconds)} frames into {files}: {1 / np.median(self.seconds):.1f} frames per"
            f" second, {not_counted}."
        )


def video_kinds(source: str, kinds: list[str]) -> list[str]:
    """Kinds of --save that are possible for a video; raises ValueError if there is none."""
    possible = [kind for kind in kinds if kind in ("overlay", "color")]
    if not possible:
        raise ValueError(
            f"{source} is a video, whose compression would spoil {' and '.join(kinds)}. Choose"
            " --save overlay or color, or give images alone."
        )
    return possible


def say_left_out(source: str, kinds: list[str]) -> None:
    """Prints which kinds of --save a video does not get; raises what ``video_kinds`` raises."""
    possible = video_kinds(source, kinds)
    left_out = [kind for kind in kinds if kind not in possible]
    if left_out:
        print(
            f"NOTE: a video gets no {' and '.join(left_out)}, which its compression would spoil."
            " For these cut it into images: ffmpeg -i VIDEO frames/%06d.png"
        )


def predict_video(
    network: NamedNetwork, path: Path, reader: VideoReader, stem: str, results: Results
) -> None:
    """Writes one MP4 for each kind of --save, frame by frame."""
    results = results._replace(kinds=video_kinds(str(path), results.kinds))
    with PredictionVideos(network, stem, reader.fps, results) as videos:
        frames = reader.frames or None
        for frame in tqdm(reader, total=frames, desc=path.name, unit="frame", disable=None):
            if reader.repeats:
                videos.write(frame, videos.segment(frame), reader.repeats)
    if reader.ended_early:
        print(
            f"WARNING: {path} ended after {reader.read} of the {reader.frames} frames that its"
            " header promises: it is truncated or damaged."
        )
    videos.print_summary("decoding and encoding not counted")


def predict_camera(
    network: NamedNetwork,
    number: int,
    results: Results,
    seconds: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Records camera ``number`` in real time: one MP4 for each kind of --save.

    Ends with the camera, with Ctrl-C, or after ``seconds`` by ``clock``.
    """
    results = results._replace(kinds=video_kinds(f"Camera {number}", results.kinds))
    camera = Camera(number)
    network.require_memory(Path(f"camera {number}"), camera.size)
    stopped = False
    with ExitStack() as stack:
        stack.callback(camera.close)
        videos = stack.enter_context(
            PredictionVideos(network, f"camera_{number}", camera.fps, results)
        )
        stop, start = stack.enter_context(StopRequest()), clock()
        title = f"camera {number}, Ctrl-C ends"
        for frame in tqdm(camera, desc=title, unit="frame", disable=None):
            train_ids = videos.segment(frame)
            elapsed_s = clock() - start
            videos.write(frame, train_ids, videos.due(elapsed_s))
            stopped = bool(stop) or (seconds is not None and elapsed_s >= seconds)
            if stopped:
                break
    if not stopped:
        print(
            f"WARNING: camera {number} gave no more pictures after {camera.read}: was it unplugged?"
        )
    videos.print_summary("capture and encoding not counted")
