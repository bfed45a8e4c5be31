"""What the page shows of predictions: pictures, legend and downloads, as HTML without files."""

import base64
import html
from collections.abc import Sequence

import cv2
import numpy as np

from scripts.app.segment import Prediction, SegmentedVideo
from utils.files import encoded_png

STYLE = """
.networks { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)) }
.networks figure { margin: 0 }
.stack { position: relative; line-height: 0 }
.stack img, .networks video { width: 100%; border-radius: .5rem }
.stack .classes { position: absolute; inset: 0; opacity: var(--strength, .55);
  image-rendering: pixelated }
.networks figcaption { margin-top: .4rem; line-height: 1.4 }
.networks .time { opacity: .7; font-variant-numeric: tabular-nums }
.shares { border-collapse: collapse; margin-top: 1rem; font-variant-numeric: tabular-nums }
.shares td, .shares th { padding: .15rem 1.2rem .15rem 0 !important; border: 0 !important;
  text-align: right; white-space: nowrap }
.shares td:first-child, .shares th:first-child { text-align: left }
.shares, .shares tr { border: 0 !important }
.shares i { display: inline-block; width: 1.1rem; height: .8rem; margin-right: .5rem;
  border-radius: .2rem; border: 1px solid #8886 }
.absent { opacity: .6; margin-top: .6rem }
"""
FOLLOW = """
for (const other of this.closest('.networks').querySelectorAll('video')) {
  if (other === this) continue;
  if (Math.abs(other.currentTime - this.currentTime) > 0.1) other.currentTime = this.currentTime;
  if (other.paused !== this.paused) this.paused ? other.pause() : other.play();
}
"""
"""Run in the browser by a video that is started, stopped or moved: the others show its moment."""


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def jpeg(image: np.ndarray) -> bytes:
    """A JPEG of (H, W, 3) uint8 RGB."""
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def show_image(image: np.ndarray, predictions: Sequence[Prediction], stem: str) -> str:
    """The networks side by side over their image, and the share of each class."""
    photo = data_uri(jpeg(image), "image/jpeg")
    figures = "".join(_figure(photo, prediction, stem) for prediction in predictions)
    return f'<div class="networks">{figures}</div>{_shares(predictions)}'


def _figure(photo: str, prediction: Prediction, stem: str) -> str:
    colors = prediction.network.class_set.color_table[prediction.train_ids]  # (H, W, 3)
    classes = data_uri(encoded_png(colors), "image/png")
    labels = data_uri(encoded_png(prediction.train_ids), "image/png")
    name = html.escape(prediction.name)
    download = html.escape(f"{stem}_{prediction.name}_trainIds.png", quote=True)
    return (
        f'<figure><div class="stack"><img src="{photo}" alt="the image">'
        f'<img class="classes" src="{classes}" alt="classes by {name}"></div>'
        f"<figcaption><b>{name}</b> <span class=time>{_time(prediction.seconds)}</span>"
        f' <a class="labels" href="{labels}" download="{download}">label map (trainIds)</a>'
        "</figcaption></figure>"
    )


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms, {1 / seconds:.1f} frames/s"


def _shares(predictions: Sequence[Prediction]) -> str:
    """The legend: a row for each class that was found, a column of shares for each network."""
    colors = {
        name: prediction.network.class_set.color_table[index]
        for prediction in reversed(predictions)
        for index, name in enumerate(prediction.network.class_set.names)
    }
    shares = [prediction.shares for prediction in predictions]
    heads = "".join(f"<th>{html.escape(prediction.name)}</th>" for prediction in predictions)
    rows, absent = [], []
    for name, color in colors.items():
        found = [share.get(name) for share in shares]
        if not any(found):
            absent.append(html.escape(name))
            continue
        rgb = "rgb({}, {}, {})".format(*color.tolist())
        cells = "".join("<td>-</td>" if f is None else f"<td>{100 * f:.1f} %</td>" for f in found)
        rows.append(
            f'<tr><td><i style="background: {rgb}"></i>{html.escape(name)}</td>{cells}</tr>'
        )
    others = f'<p class="absent">not found: {", ".join(absent)}</p>' if absent else ""
    table = f'<table class="shares"><tr><th>class</th>{heads}</tr>{"".join(rows)}</table>'
    return f"{table}{others}"


def show_videos(videos: Sequence[SegmentedVideo], stem: str) -> str:
    """The overlays of each network as a video, side by side, all at the same moment."""
    figures = []
    together = " ".join(f'{event}="{FOLLOW}"' for event in ("onplay", "onpause", "onseeking"))
    for video in videos:
        name, source = html.escape(video.name), data_uri(video.content, "video/mp4")
        download = html.escape(f"{stem}_{video.name}_overlay.mp4", quote=True)
        figures.append(
            f'<figure><video src="{source}" controls autoplay loop muted {together}></video>'
            f"<figcaption><b>{name}</b>"
            f" <span class=time>{_time(float(np.median(video.seconds)))}</span>"
            f' <a href="{source}" download="{download}">video (MP4)</a></figcaption></figure>'
        )
    return f'<div class="networks">{"".join(figures)}</div>'
