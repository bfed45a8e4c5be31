"""Videos as telephones and dashcams make them: their times, and their names."""

import cv2
import numpy as np
import pytest

from utils import video
from utils.video import VideoReader, VideoWriter


class Capture:
    """Stands for OpenCV's capture of a video whose frame k is shown at ``times[k]`` seconds."""

    def __init__(self, times, fps=10.0):
        self.times, self.fps, self.next = times, fps, 0

    def __call__(self, name):
        return Capture(self.times, self.fps)

    def grab(self):
        self.next += 1
        return self.next <= len(self.times)

    def read(self):
        return self.grab(), np.full((4, 4, 3), self.next - 1, np.uint8)

    def get(self, what):
        shown = self.times[min(self.next, len(self.times)) - 1]
        known = {cv2.CAP_PROP_POS_MSEC: 1000 * shown, cv2.CAP_PROP_FPS: self.fps}
        return known.get(what, len(self.times))

    def release(self):
        pass


def shown(monkeypatch, path, times, fps):
    """(rate, number of the frame in each interval) of the result."""
    monkeypatch.setattr(cv2, "VideoCapture", Capture(times, fps))
    path.write_bytes(b"video")
    reader = VideoReader(path)
    frames = [int(frame[0, 0, 0]) for frame in reader for _ in range(reader.repeats)]
    return reader.fps, frames


def test_a_constant_rate_shows_each_frame_once(tmp_path, monkeypatch):
    """Trembling clocks, missing times and broken rates change nothing."""
    tremble = np.random.default_rng(0).uniform(-0.004, 0.004, 50)
    for times in (np.arange(50) / 25, np.arange(50) / 25 + tremble, np.zeros(50)):
        assert shown(monkeypatch, tmp_path / "a.mp4", times, 25.0) == (25.0, [*range(50)])


def test_a_varying_rate_keeps_the_time_of_each_frame(tmp_path, monkeypatch):
    """The rate is the fastest; slow frames are repeated, and the length stays."""
    times = np.cumsum([0, *[0.1] * 6, *[0.3] * 6])[:12]
    fps, frames = shown(monkeypatch, tmp_path / "a.mp4", times, 5.0)
    assert fps == pytest.approx(10)
    assert frames == [*range(6), *np.repeat(range(6, 12), 3).tolist()]


def test_a_gap_is_a_still_picture(tmp_path, monkeypatch):
    """A recorder that pauses for three seconds shows its last frame for three seconds."""
    times = [*(np.arange(10) / 10), *(3.9 + np.arange(10) / 10)]
    _, frames = shown(monkeypatch, tmp_path / "a.mp4", times, 10.0)
    assert frames == [*range(9), *[9] * 30, *range(10, 20)]


@pytest.mark.parametrize("name", ["2024-05-01T12:30:00", "file:a", "50%_%02d", "a b"])
def test_names_are_no_protocols(tmp_path, monkeypatch, name):
    """Colons and percent signs belong to the name, of inputs and of results."""
    monkeypatch.chdir(tmp_path)
    with VideoWriter(f"{name}.mp4", 10) as writer:
        for value in range(3):
            writer.write(np.full((32, 32, 3), value, np.uint8))
    assert len(list(VideoReader(f"{name}.mp4"))) == 3


def test_a_name_that_is_not_utf8_has_a_remedy(tmp_path):
    """OpenCV cannot open it: the error names the video and says: rename it."""
    path = tmp_path / "stra\udcdfe.mp4"
    path.touch()
    with pytest.raises(ValueError, match=r"stra\\xdfe.mp4: the name is not UTF-8.*Rename"):
        VideoReader(path)


def test_videos_of_cameras_are_known_by_their_suffix():
    """Dashcams and camcorders write transport streams."""
    assert {".ts", ".mts", ".m2ts", ".mpg", ".mp4"} <= {*video.VIDEO_SUFFIXES}
