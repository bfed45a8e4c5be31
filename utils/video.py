"""Reads videos and cameras frame by frame; writes MP4s that browsers play."""

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from utils.files import remove_quietly

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm"),
    *(".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".3gp"),
)
_TIMED_FRAMES = 300
"""Frames at the beginning of a video whose times tell how fast it runs at its fastest."""
_HIGHEST_FPS = 120.0


class _FrameReader:
    """Iterator over the frames of an OpenCV capture, (H, W, 3) uint8 RGB.

    ``fps``: its frame rate, 25 if unknown. ``size``: (height, width). ``read``: frames so far.
    """

    def __init__(self, capture: cv2.VideoCapture):
        self._capture, self.read = capture, 0
        self._first = self._decode()
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else 25.0

    @property
    def size(self) -> tuple[int, int]:
        return self._first.shape[:2]

    def _decode(self) -> np.ndarray | None:
        decoded, frame = self._capture.read()
        return frame if decoded else None

    def __iter__(self) -> Iterator[np.ndarray]:
        frame = self._first
        while frame is not None:
            self.read += 1
            yield np.ascontiguousarray(frame[..., ::-1])
            frame = self._decode()

    def close(self) -> None:
        self._capture.release()


class VideoReader(_FrameReader):
    """Frames of a video file. ``frames``: their number by its header (0: unknown).

    Raises FileNotFoundError, or ValueError if no frame can be decoded. A damaged video may have
    fewer frames than its header says: see ``ended_early``.
    """

    def __init__(self, path: Path):
        if not Path(path).is_file():
            raise FileNotFoundError(f"No video at {path}.")
        self._path = _name_for_opencv(path)
        if not os.path.getsize(path):
            raise ValueError(f"{path} is empty; expected a video. Fetch it again, or leave it out.")
        super().__init__(cv2.VideoCapture(self._path))
        if self._first is None:
            raise ValueError(
                f"{path} cannot be decoded as a video. It is damaged, or in a format that this"
                " OpenCV does not know; convert it, for example with: ffmpeg -i INPUT -c:v libx264"
                " OUTPUT.mp4"
            )
        self.frames = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.repeats = 1
        self.fps = _fastest_rate(self._path, self.fps)

    def __iter__(self) -> Iterator[np.ndarray]:
        """The frames. Before each, ``repeats`` says how often a video of ``fps`` shows it: once.

        In a video of varying frame rate more often, or never, so that each keeps its time.
        """
        start = time = self._time()
        frame, shown, interval = self._first, 0, 1 / self.fps
        while frame is not None:
            self.read += 1
            following = self._decode()
            following_time = self._time() if following is not None else time + interval
            if following_time <= time:  # the file has no times: frames of equal length
                following_time = time + 1 / self.fps
            interval = following_time - time
            until = round((following_time - start) * self.fps)
            self.repeats = max(0, until - shown)
            shown = max(shown, until)
            yield np.ascontiguousarray(frame[..., ::-1])
            frame, time = following, following_time
        self.close()

    def _time(self) -> float:
        """Seconds from the start of the video at which the frame decoded last is shown."""
        return self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000

    @property
    def ended_early(self) -> bool:
        """Whether more than two frames are missing; headers miscount by one or two."""
        return self.read + 2 < self.frames


def _name_for_opencv(path: Path) -> str:
    """The absolute path, in which a colon stands for no protocol. Raises ValueError."""
    name = os.path.abspath(path)
    try:
        name.encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
        raise ValueError(
            f"{shown}: the name is not UTF-8, which OpenCV cannot open. Rename the video."
        ) from error
    return name


def _fastest_rate(path: str, fps: float) -> float:
    """Frames per second where a video runs fastest, or ``fps`` for a constant rate.

    Videos of telephones and screen recorders have varying rates; their header has the mean.
    """
    capture, times = cv2.VideoCapture(path), []
    while len(times) < _TIMED_FRAMES and capture.grab():
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    capture.release()
    intervals = np.diff(times)
    if len(intervals) < 2 or (intervals <= 0).any():
        return fps
    shortest = float(np.quantile(intervals, 0.1))
    if shortest * fps > 0.8:  # clocks tremble
        return fps
    return min(1 / shortest, max(fps, _HIGHEST_FPS))


class Camera(_FrameReader):
    """Frames of camera ``number`` until it stops; raises ValueError if it gives no picture."""

    def __init__(self, number: int):
        super().__init__(cv2.VideoCapture(number))
        if self._first is None:
            devices = ", ".join(sorted(map(str, Path("/dev").glob("video*")))) or "none"
            raise ValueError(
                f"Camera {number} gives no picture. Is one connected, in use elsewhere, or without"
                f" permission? Linux calls cameras /dev/videoNUMBER; found: {devices}. Choose"
                " another number, or give a video file instead."
            )


def due_frames(seconds: float, fps: float, written: int) -> int:
    """How often to write the frame that is ready after ``seconds``, for a video in real time.

    More than once if the network is slower than ``fps``, 0 if it is faster. ``written``: frames so
    far.
    """
    return max(0, int(seconds * fps) + 1 - written)


class VideoWriter:
    """Writes an MP4 with VP9, which browsers play and which the wheels of OpenCV can encode.

    A context; the file appears at its end. Frames are (H, W, 3) uint8 RGB of one size; VP9 needs
    even sizes, so an odd last row or column is dropped. Raises OSError if the file cannot be
    written, or has too few frames when read back: OpenCV does not report a full disk.
    """

    def __init__(self, path: Path, fps: float):
        self.path, self.fps, self.written = Path(path), fps, 0
        self._temporary = self.path.with_name(f".writing.{self.path.stem}.mp4")
        self._writer: cv2.VideoWriter | None = None

    def write(self, frame: np.ndarray) -> None:
        """Appends a frame, (H, W, 3) uint8 RGB."""
        height, width = (side - side % 2 for side in frame.shape[:2])
        if self._writer is None:
            self._writer = cv2.VideoWriter(
                _name_for_opencv(self._temporary),
                cv2.VideoWriter_fourcc(*"vp09"),
                self.fps,
                (width, height),
            )
            if not self._writer.isOpened():
                raise OSError(
                    f"Cannot write {self.path}: no file can be made there, or this OpenCV has no"
                    " VP9 encoder. Choose another --output, or install"
                    " opencv-python-headless from PyPI, whose wheels have one."
                )
        self._writer.write(np.ascontiguousarray(frame[:height, :width, ::-1]))
        self.written += 1

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind, *_: object) -> None:
        if self._writer is not None:
            self._writer.release()
        if kind is not None or self._writer is None:
            remove_quietly(self._temporary)
            return
        readable = _count_frames(self._temporary)
        if readable != self.written:
            remove_quietly(self._temporary)
            raise OSError(
                f"{self.path}: {self.written} frames were written, {readable} read back. Is the"
                " disk full? Make room, or choose another place."
            )
        self._temporary.replace(self.path)


def _count_frames(path: Path) -> int:
    capture, count = cv2.VideoCapture(_name_for_opencv(path)), 0
    while capture.grab():
        count += 1
    capture.release()
    return count
