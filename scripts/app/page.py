"""The page: its controls, and what happens when a visitor sends something."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import numpy as np

from scripts.app.html import show_image, show_videos
from scripts.app.networks import Network
from scripts.app.segment import (
    VideoJob,
    check_suffix,
    is_video,
    load_image,
    segment_image,
)

STRENGTH = 0.55
SET_STRENGTH = """
(strength) => {
  document.documentElement.style.setProperty("--strength", strength);
  return strength;
}
"""
"""Changes the overlays in the browser: nothing is computed again."""
CAMERA = gr.WebcamOptions(
    mirror=False, constraints={"video": {"width": {"ideal": 1024}, "height": {"ideal": 576}}}
)
"""As predict sees a camera: not mirrored. About as large as the images that networks learn from."""
KEPT_S = 60
"""Seconds for which an upload is kept at least."""
UNUSED_S = 900
"""Seconds after which a file that no visitor has is removed: queues are shorter."""
AT_ONCE = 4
"""Visitors that are served at a time; their images take turns in the networks."""


class Page:
    """Answers of the page. ``networks``: by name. ``video_seconds``: longest video."""

    def __init__(self, networks: dict[str, Network], video_seconds: float):
        self.networks, self.video_seconds = networks, video_seconds
        self._uploads: dict[str | None, Path] = {}
        self._given_up: set[Path] = set()

    def segment_file(
        self, file: str | None, names: list[str], strength: float, request: gr.Request
    ) -> Iterator[str]:
        """Yields the HTML of an uploaded image or video; for a video its progress before."""
        if file is None:
            yield ""
            return
        path = Path(file)
        self._keep_only(path, request.session_hash)
        try:
            chosen = self._choose(names)
            check_suffix(path)
            if is_video(path):
                yield from self._segment_video(path, chosen, strength)
            else:
                image = load_image(path, chosen)
                yield show_image(image, segment_image(image, chosen), path.stem)
        except (ValueError, OSError) as error:  # the visitor knows the file's name, not its folder
            message = str(error).replace(str(path), path.name)
            raise gr.Error(message, duration=None, print_exception=False) from error

    def segment_camera(self, frame: np.ndarray | None, names: list[str]) -> str:
        """The HTML of a camera picture (H, W, 3) uint8 RGB."""
        if frame is None or not names:
            return ""
        chosen = self._choose(names)
        return show_image(frame, segment_image(frame, chosen), "camera")

    def remove_unused(self, uploads: Path) -> None:
        """Removes the files below ``uploads`` that no visitor has, UNUSED_S after they came.

        One that cannot be removed now, or that is gone already, is passed over.
        """
        kept = {path.resolve() for path in list(self._uploads.values())}
        for file in uploads.resolve().rglob("*"):
            if file in kept or not file.is_file():
                continue
            with contextlib.suppress(OSError):
                status = file.stat()
                if time.time() - max(status.st_mtime, status.st_ctime) >= UNUSED_S:
                    file.unlink()

    def forget(self, request: gr.Request) -> None:
        """Removes what a visitor who leaves has uploaded."""
        self._keep_only(None, request.session_hash)

    def _segment_video(
        self, path: Path, networks: dict[str, Network], strength: float
    ) -> Iterator[str]:
        job = VideoJob(path, networks, strength, self.video_seconds)
        for number in job.run():
            total = f" of {job.reader.frames}" if job.reader.frames else ""
            yield f"<p>{path.name}: frame {number}{total}</p>"
        yield show_videos(job.videos, path.stem)

    def _choose(self, names: list[str]) -> dict[str, Network]:
        if not names:
            raise ValueError("No network is chosen. Choose at least one.")
        return {name: self.networks[name] for name in self.networks if name in names}

    def _keep_only(self, path: Path | None, visitor: str | None) -> None:
        """Gives up the earlier upload of a visitor, and removes what nobody has uploaded lately.

        Equal files of several visitors are one file: it stays while one of them has it, and for
        KEPT_S more, because somebody may just be sending it.
        """
        earlier = self._uploads.pop(visitor, None)
        if earlier is not None:
            self._given_up.add(earlier)
        if path is not None:
            self._uploads[visitor] = path
        for old in self._given_up - set(self._uploads.values()):
            if old.exists() and time.time() - old.stat().st_mtime < KEPT_S:
                continue
            old.unlink(missing_ok=True)
            self._given_up.discard(old)


def build(page: Page) -> gr.Blocks:
    """The controls of ``page``."""
    names = list(page.networks)
    with gr.Blocks(title="Segmentation", analytics_enabled=False) as blocks:
        gr.Markdown("# Segmentation\nNothing that you show here is kept, or leaves this machine.")
        with gr.Row():
            with gr.Column(scale=2):
                with gr.Tab("File"):
                    file = gr.File(label="an image, or a short video", height=140)
                with gr.Tab("Camera"):
                    camera = gr.Image(
                        sources=["webcam"], streaming=True, show_label=False, webcam_options=CAMERA
                    )
            with gr.Column(scale=1):
                chosen = gr.CheckboxGroup(names, value=names, label="networks")
                strength = gr.Slider(0, 1, STRENGTH, step=0.05, label="strength of the overlay")
        result = gr.HTML()
        inputs = [file, chosen, strength]
        shared = {"concurrency_limit": AT_ONCE, "concurrency_id": "networks"}
        gr.on(
            [file.change, chosen.change],
            page.segment_file,
            inputs,
            result,
            api_name="segment",
            trigger_mode="always_last",
            **shared,
        )
        strength.input(None, strength, None, js=SET_STRENGTH)
        camera.stream(
            page.segment_camera,
            [camera, chosen],
            result,
            stream_every=0.2,
            time_limit=600,
            show_progress="hidden",
            api_name=False,
            **shared,
        )
        blocks.unload(page.forget)
    return blocks
