"""scripts.predict --camera, with a video instead of a camera."""

import itertools
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dataset.class_set_file import load_class_set
from scripts.predict import __main__ as entry
from scripts.predict.drawing import Results
from scripts.predict.network import NamedNetwork
from scripts.predict.videos import predict_camera
from tests.conftest import scene
from tests.helpers.forked import run_forked
from tests.helpers.networks import write_checkpoint
from utils import video
from utils.video import VideoReader, VideoWriter, due_frames

pytestmark = pytest.mark.usefixtures("narrow_networks")


@pytest.fixture
def filmed(tmp_path, monkeypatch) -> Path:
    """Camera 3 gives 12 frames at 10 frames per second; there is no other camera."""
    path = tmp_path / "filmed.mp4"
    with VideoWriter(path, fps=10) as writer:
        for number in range(12):
            writer.write(scene(number, (64, 96))[0])
    capture = cv2.VideoCapture
    monkeypatch.setattr(
        video.cv2, "VideoCapture", lambda source: capture(str(path if source == 3 else source))
    )
    return path


def overlays(folder: Path) -> Results:
    return Results(folder, ["overlay"], has_legend=False)


def segment_bright(image: np.ndarray) -> np.ndarray:
    return (image.mean(2) > 128).astype(np.uint8)


bright = NamedNetwork("bright", segment_bright, load_class_set("cityscapes19"), torch.device("cpu"))


def test_a_slow_network_repeats_frames(filmed, tmp_path, capsys):
    """At 0.25 s a prediction and 10 frames per second, each is written two or three times."""
    ticks = itertools.count()
    predict_camera(bright, 3, overlays(tmp_path), seconds=2, clock=lambda: 0.25 * next(ticks))
    frames = list(VideoReader(tmp_path / "camera_3_overlay.mp4"))
    assert len(frames) == 21  # 2 s, and the frame with which they end
    changes = [
        index
        for index, (before, after) in enumerate(itertools.pairwise(frames), 1)
        if np.abs(before.astype(int) - after).mean() > 8
    ]
    assert len(changes) == 7  # 8 predictions
    assert {b - a for a, b in itertools.pairwise(changes)} == {2, 3}
    assert "8 frames into" in capsys.readouterr().out


def test_a_fast_network_skips_frames(filmed, tmp_path):
    """Predictions of more than the frame rate are left out of the video."""
    ticks = itertools.count()
    predict_camera(bright, 3, overlays(tmp_path), clock=lambda: 0.05 * next(ticks))
    assert len(list(VideoReader(tmp_path / "camera_3_overlay.mp4"))) == 7  # 0.6 s


def test_frames_due():
    """due_frames: how often a frame is written, for a video of constant frame rate."""
    assert due_frames(0.0, 10, 0) == 1
    assert due_frames(0.35, 10, 1) == 3
    assert due_frames(0.35, 10, 9) == 0


def test_a_camera_that_ends_gives_a_warning(filmed, tmp_path, capsys):
    """Without Ctrl-C and --seconds, the end of the pictures is reported."""
    predict_camera(bright, 3, overlays(tmp_path))
    assert "gave no more pictures after 12: was it unplugged?" in capsys.readouterr().out


def test_ctrl_c_ends_the_video_and_keeps_it(filmed, tmp_path, capsys):
    """The frame in progress is finished and the video is complete."""
    seen = []

    def segment(image: np.ndarray) -> np.ndarray:
        seen.append(1)
        if len(seen) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return segment_bright(image)

    ticks = itertools.count()
    predict_camera(
        bright._replace(segment=segment),
        3,
        overlays(tmp_path),
        clock=lambda: 0.1 * next(ticks),
    )
    assert len(seen) == 4
    assert len(list(VideoReader(tmp_path / "camera_3_overlay.mp4"))) == 5
    assert "unplugged" not in capsys.readouterr().out


def test_no_camera_is_an_error(filmed, tmp_path):
    """The message names cameras that exist; nothing is written."""
    message = r"Camera 7 gives no picture. Is one connected.*found: .*a video file instead"
    with pytest.raises(ValueError, match=message):
        predict_camera(bright, 7, overlays(tmp_path))
    assert not list(tmp_path.glob("camera*"))


def test_the_command_reports_a_missing_camera(tmp_path):
    """With OpenCV itself: no machine has a camera 987."""
    checkpoint = write_checkpoint(tmp_path / "last.pt")
    words = ["--camera", 987, "--model", checkpoint, "--output", tmp_path / "out"]
    found = run_forked("scripts.predict", *words)
    assert found.returncode != 0
    assert "error: Camera 987 gives no picture" in found.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give an INPUT or --camera N"),
        (("street.png", "--camera", 0), "not both"),
        (("street.png", "--seconds", 3), "--seconds limits --camera"),
        (("--camera", -1), "at least 0"),
    ],
)
def test_options_that_do_not_fit_together(tmp_path, capsys, words, message):
    """A usage error names the option."""
    with pytest.raises(SystemExit):
        entry.parse_arguments([*map(str, words), "--model", "last.pt", "--output", str(tmp_path)])
    assert message in capsys.readouterr().err


def test_label_maps_of_a_camera_are_refused(filmed, tmp_path):
    """Lossy compression would change labels."""
    results = Results(tmp_path, ["trainIds"])
    message = "Camera 3 is a video, whose compression would spoil trainIds"
    with pytest.raises(ValueError, match=message):
        predict_camera(bright, 3, results)
