"""Videos, frame by frame: reading any that OpenCV decodes, writing MP4s that a browser plays."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from utils.files import remove_quietly

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")


class VideoReader:
    """The frames of a video as (H, W, 3) uint8 RGB. ``frames`` is the number that its header
    promises (0: unknown), ``fps`` its rate.

    Raises FileNotFoundError, or ValueError where not even one frame can be decoded. A video may end
    before its promise: compare ``read`` with ``frames`` afterwards.
    """

    def __init__(self, path: Path):
        if not Path(path).is_file():
            raise FileNotFoundError(f"No video at {path}.")
        self.read = 0
        self._capture = cv2.VideoCapture(str(path))
        decoded, self._first = self._capture.read()
        if not decoded:
            raise ValueError(
                f"{path} cannot be decoded as a video. It is damaged, or in a format that this"
                " OpenCV does not know; convert it, for example with: ffmpeg -i INPUT -c:v libx264"
                " OUTPUT.mp4"
            )
        self.frames = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else 25.0
        self.size = self._first.shape[:2]

    def __iter__(self) -> Iterator[np.ndarray]:
        frame = self._first
        while frame is not None:
            self.read += 1
            yield np.ascontiguousarray(frame[..., ::-1])
            decoded, frame = self._capture.read()
            frame = frame if decoded else None
        self._capture.release()

    @property
    def ended_early(self) -> bool:
        """Whether clearly fewer frames came than were promised; headers miscount by one or two."""
        return self.read + 2 < self.frames


class Camera:
    """The frames of camera ``number``, (H, W, 3) uint8 RGB, for as long as it gives any. ``fps``:
    the rate that it promises.

    Raises ValueError where no camera answers.
    """

    def __init__(self, number: int):
        self.read = 0
        self._capture = cv2.VideoCapture(number)
        decoded, self._first = self._capture.read()
        if not decoded:
            devices = ", ".join(sorted(map(str, Path("/dev").glob("video*")))) or "none"
            raise ValueError(
                f"Camera {number} gives no picture. Is one connected, in use elsewhere, or"
                f" forbidden to this user? Linux calls cameras /dev/videoNUMBER; found: {devices}."
                " Name another number, or give a video file instead."
            )
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else 25.0
        self.size = self._first.shape[:2]

    def __iter__(self) -> Iterator[np.ndarray]:
        frame = self._first
        while frame is not None:
            self.read += 1
            yield np.ascontiguousarray(frame[..., ::-1])
            decoded, frame = self._capture.read()
            frame = frame if decoded else None

    def close(self) -> None:
        self._capture.release()


def due_frames(seconds: float, fps: float, written: int) -> int:
    """How often the frame that is ready after ``seconds`` must be written for a film of ``fps`` to
    keep the pace of the street: several times where the network is slower than the film, not at all
    where it is faster.
    """
    return max(0, int(seconds * fps) + 1 - written)


class VideoWriter:
    """An MP4 of VP9, which browsers play and which the codec inside OpenCV's wheels can write. A
    context; the file appears at its end.

    Frames are (H, W, 3) uint8 RGB of one size; an odd row or column at the end is left out, as
    VP9's color needs. Raises OSError when the file cannot be written or does not read back with
    every frame: OpenCV itself says nothing about a full disk.
    """

    def __init__(self, path: Path, fps: float):
        self.path, self.fps, self.written = Path(path), fps, 0
        self._temporary = self.path.with_name(f".writing.{self.path.stem}.mp4")
        self._writer: cv2.VideoWriter | None = None

    def write(self, frame: np.ndarray) -> None:
        height, width = (side - side % 2 for side in frame.shape[:2])
        if self._writer is None:
            self._writer = cv2.VideoWriter(
                str(self._temporary), cv2.VideoWriter_fourcc(*"vp09"), self.fps, (width, height)
            )
            if not self._writer.isOpened():
                raise OSError(
                    f"Cannot write {self.path}: no file can be made there, or this OpenCV has no"
                    " VP9 encoder. Choose another --output, or install opencv-python from PyPI,"
                    " whose wheels have one."
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
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.grab():
        count += 1
    capture.release()
    return count
