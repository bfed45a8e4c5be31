"""scripts/app: the page over HTTP, without a browser; and once in headless Chromium."""

import base64
import contextlib
import html
import http.client
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.class_set_file import DEFAULT, load_class_set
from tests.conftest import scene
from tests.helpers.exported import predicted_train_ids
from tests.helpers.networks import write_checkpoint
from utils.benchmark import memory
from utils.video import VideoReader, VideoWriter

gradio = pytest.importorskip("gradio", reason="optional: pip install -r requirements-app.txt")
from gradio_client import Client, handle_file  # noqa: E402
from gradio_client.exceptions import AppError  # noqa: E402

from scripts.app import __main__ as entry  # noqa: E402
from scripts.app import networks as network_module  # noqa: E402
from scripts.app import page as page_module  # noqa: E402
from scripts.app import server as server_module  # noqa: E402
from scripts.app.networks import Network, load_networks  # noqa: E402

CPU = torch.device("cpu")
CLASS_SET = load_class_set(DEFAULT)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
VIDEO_SECONDS = 2.0


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        write_checkpoint(folder / f"{name}/last.pt", name, seed)
        for seed, name in enumerate(("source", "adapted"))
    ]


@contextlib.contextmanager
def served(networks, uploads: Path):
    """The address of a page of ``networks``."""
    import uvicorn

    app = server_module.build_app(networks, VIDEO_SECONDS, uploads)
    with server_module.free_socket(7860) as sock:
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def uploads(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def page(checkpoints, uploads):
    networks = load_networks(checkpoints, CPU, "fp32")
    with served(networks, uploads) as address:
        yield address


@pytest.fixture
def visitor(page) -> Client:
    return Client(page, verbose=False)


@pytest.fixture
def image(tmp_path) -> Path:
    Image.fromarray(scene(0, (64, 96))[0]).save(tmp_path / "street.png")
    return tmp_path / "street.png"


def send(visitor: Client, path: Path, *names: str) -> str:
    """The HTML that the page answers with."""
    names = list(names or ("source", "adapted"))
    return visitor.predict(handle_file(str(path)), names, 0.55, api_name="/segment")


def label_maps(answer: str) -> dict[str, np.ndarray]:
    """{name of the download: label map} of an answer."""
    found = re.findall(r'href="data:image/png;base64,([^"]*)" download="([^"]*)"', answer)
    return {
        html.unescape(name): np.array(Image.open(io.BytesIO(base64.b64decode(content))))
        for content, name in found
    }


def write_video(path: Path, frames: int) -> Path:
    with VideoWriter(path, 10) as writer:
        for number in range(frames):
            writer.write(scene(number, (64, 96))[0])
    return path


def test_the_label_map_is_that_of_predict(visitor, image, checkpoints, tmp_path):
    """For each network, bit for bit."""
    maps = label_maps(send(visitor, image))
    assert list(maps) == ["street_source_trainIds.png", "street_adapted_trainIds.png"]
    for checkpoint, found in zip(checkpoints, maps.values(), strict=True):
        expected = predicted_train_ids(checkpoint, (64, 96), tmp_path / checkpoint.parent.name)
        assert np.array_equal(found, expected)


def test_the_legend_has_the_share_of_each_class(visitor, image):
    answer = send(visitor, image, "adapted")
    (train_ids,) = label_maps(answer).values()
    rows = re.findall(r"</i>([a-z ]+)</td><td>([\d.]+) %</td>", answer)
    assert len(rows) > 3
    for name, share in rows:
        mean = (train_ids == CLASS_SET.names.index(name)).mean()
        assert float(share) == pytest.approx(100 * mean, abs=0.051)
    absent = re.search(r"not found: ([a-z, ]+)<", answer)[1].split(", ")
    assert sorted([*absent, *(name for name, _ in rows)]) == sorted(CLASS_SET.names)
    assert re.search(r"\d+ ms, [\d.]+ frames/s", answer)


def test_a_video_becomes_a_video_of_overlays(visitor, tmp_path):
    answer = send(visitor, write_video(tmp_path / "drive.mp4", 6), "source")
    content = re.search(r'<video src="data:video/mp4;base64,([^"]*)"', answer)[1]
    (tmp_path / "found.mp4").write_bytes(base64.b64decode(content))
    assert len(list(VideoReader(tmp_path / "found.mp4"))) == 6
    assert 'download="drive_source_overlay.mp4"' in answer


def refused(visitor: Client, path: Path, *names: str) -> str:
    with pytest.raises(AppError) as error:
        send(visitor, path, *names)
    return str(error.value)


def test_wrong_files_are_refused_as_by_predict(visitor, image, tmp_path, monkeypatch, capsys):
    """With its messages, in which the file has the visitor's name, and without a traceback."""
    (tmp_path / "notes.txt").write_text("")
    assert refused(visitor, tmp_path / "notes.txt").startswith("No image and no video in notes.txt")
    (tmp_path / "cut.png").write_bytes(image.read_bytes()[:100])
    assert refused(visitor, tmp_path / "cut.png").startswith("cut.png cannot be decoded")
    (tmp_path / "cut.mp4").write_bytes(b"no video" * 1000)
    assert "cut.mp4 cannot be decoded as a video" in refused(visitor, tmp_path / "cut.mp4")
    monkeypatch.setattr(memory, "available_memory", lambda device: 1_000_000)
    assert "street.png is 64x96 (height x width); segmenting it takes" in refused(visitor, image)
    assert "Traceback" not in capsys.readouterr().err


def test_a_video_that_is_too_long_is_refused(visitor, tmp_path):
    message = refused(visitor, write_video(tmp_path / "long.mp4", 21), "source")
    assert message.startswith("long.mp4 lasts 2.1 s or more; this page takes 2 s at most. Cut it")


def test_two_at_once_get_their_own_answers(page, visitor, image, tmp_path):
    Image.fromarray(scene(1, (80, 64))[0]).save(tmp_path / "other.png")
    paths = [image, tmp_path / "other.png"]
    alone = [label_maps(send(visitor, path, "source")) for path in paths]
    visitors = [visitor, Client(page, verbose=False)]
    with ThreadPoolExecutor(2) as pool:
        answers = pool.map(lambda v, path: send(v, path, "source"), visitors, paths)
        together = [label_maps(answer) for answer in answers]
    for expected, found in zip(alone, together, strict=True):
        assert expected.keys() == found.keys()
        assert all(np.array_equal(expected[name], found[name]) for name in expected)


def test_a_visitor_who_leaves_stops_the_work(tmp_path):
    """The video is given up, nothing of it stays, and the next visitor is served."""
    segmented = []

    def predict(image):
        segmented.append(1)
        time.sleep(0.2)
        return np.zeros(image.shape[:2], np.uint8)

    network = Network("slow", predict, CPU, CLASS_SET)
    with served({"slow": network}, tmp_path / "uploads") as page:
        visitor = Client(page, verbose=False)
        video = handle_file(str(write_video(tmp_path / "drive.mp4", 20)))
        job = visitor.submit(video, ["slow"], 0.5, api_name="/segment")
        while not segmented:
            time.sleep(0.02)
        job.cancel()
        count = 0
        while count < len(segmented):
            count = len(segmented)
            time.sleep(1)
        assert count < 20
        Image.fromarray(scene(0, (64, 96))[0]).save(tmp_path / "street.png")
        assert label_maps(send(Client(page, verbose=False), tmp_path / "street.png", "slow"))


def test_an_upload_is_kept_only_until_the_next(tmp_path, monkeypatch):
    """But not removed from other visitors: equal files are one file. At the end all are removed."""
    answers = page_module.Page({}, VIDEO_SECONDS)
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    for path in (first, second):
        path.touch()
    for visitor in ("a", "b"):
        answers._keep_only(first, visitor)
    monkeypatch.setattr(page_module, "KEPT_S", 0)
    answers._keep_only(second, "a")
    assert first.exists()
    answers._keep_only(None, "b")
    assert not first.exists()
    assert second.exists()
    monkeypatch.setattr(page_module, "KEPT_S", 60)
    answers._keep_only(None, "a")
    assert second.exists()  # somebody may just be sending it


def status_of(page: str, method: str = "GET", **headers: str) -> int:
    """The HTTP status of a request for the page with these headers."""
    connection = http.client.HTTPConnection(page.removeprefix("http://"))
    path = "/gradio_api/upload" if method == "POST" else "/"
    connection.request(method, path, b"--x--" if method == "POST" else None, headers)
    return connection.getresponse().status


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"Host": "127.0.0.1:1"}, False),
        ({"Host": "localhost"}, False),
        ({"Host": "[::1]:7860", "Origin": "http://[::1]:7860"}, False),
        ({"Host": "attacker.example"}, True),
        ({"Host": "127.0.0.1.attacker.example:7860"}, True),
        ({"Host": "["}, True),
        ({"Origin": "http://attacker.example"}, True),
        ({"Origin": "http://127.0.0.1:1"}, True),
        ({"Origin": "null"}, True),
    ],
)
def test_other_sites_reach_neither_page_nor_uploads(page, headers, refused):
    """Neither by a name of their own for this machine, nor from their pages in the browser."""
    for method in ("GET", "POST"):
        kind = {"Content-Type": "multipart/form-data; boundary=x"} if method == "POST" else {}
        assert (status_of(page, method, **headers, **kind) == 403) == refused


def test_uploads_that_nobody_segments_are_removed(tmp_path, monkeypatch):
    """Some time after they came; those of visitors stay."""
    monkeypatch.setattr(server_module, "SWEEP_EVERY_S", 0.05)
    monkeypatch.setattr(page_module, "UNUSED_S", 0.5)
    with served({}, tmp_path):
        (tmp_path / "hash").mkdir()
        (tmp_path / "hash/x.png").touch()
        start = time.monotonic()
        while (tmp_path / "hash/x.png").exists():
            assert time.monotonic() - start < 60
            time.sleep(0.05)
    answers = page_module.Page({}, VIDEO_SECONDS)
    used, unused = tmp_path / "used.png", tmp_path / "unused.png"
    for path in (used, unused):
        path.touch()
    answers._keep_only(used, "a")
    monkeypatch.setattr(page_module, "UNUSED_S", 60)
    answers.remove_unused(tmp_path)
    assert unused.exists()
    monkeypatch.setattr(page_module, "UNUSED_S", 0)
    answers.remove_unused(tmp_path)
    assert used.exists()
    assert not unused.exists()


def test_the_page_asks_no_other_server(page):
    """Neither scripts nor fonts come from elsewhere, and the browser is told so."""
    import urllib.request

    with urllib.request.urlopen(page) as response:
        policy = response.headers["Content-Security-Policy"]
        text = response.read().decode()
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert not re.findall(r'<(?:script|link)[^>]*(?:src|href)="https?://(?!127)', text)


def test_a_port_in_use_is_passed_over(capsys):
    """The next one is taken, and said; where all are in use, the error says which."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with server_module.free_socket(port) as found:
            address, number = found.getsockname()
        assert address == "127.0.0.1"
        assert number > port
        assert (
            f"NOTE: port {port} is in use; the page is at port {number}." in capsys.readouterr().out
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(server_module, "PORTS_TRIED", 1)
            with pytest.raises(OSError, match=rf"The ports {port} to {port} are in use"):
                server_module.free_socket(port)


def test_ctrl_c_ends_without_a_traceback():
    """None of the server: a browser may have the page open, whose connection is cut off."""
    program = "from scripts.app.server import serve; serve({}, 7860, 20)"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    line = next(text for text in process.stdout if text.startswith("Open "))
    port = int(re.search(r"http://127.0.0.1:(\d+)", line)[1])
    browser = http.client.HTTPConnection("127.0.0.1", port)
    browser.request("GET", "/gradio_api/heartbeat/a-visitor")  # answered while the page is open
    assert browser.getresponse().status == 200
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "ERROR:" not in errors  # of the server: its log


def test_networks_of_equal_names_are_told_apart(monkeypatch):
    def load(path, *_):
        return Network("ada", None, CPU, CLASS_SET)

    monkeypatch.setattr(network_module, "load_network_file", load)
    paths = [Path("a/last.pt"), Path("a/best.pt"), Path("b/last.pt")]
    names = list(load_networks(paths, CPU, "fp32"))
    assert names == ["ada (a/last.pt)", "ada (best.pt)", "ada (b/last.pt)"]


def test_without_gradio_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(entry.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs gradio.*pip install -r requirements-app.txt"):
        entry.main(entry.parse_arguments(["last.pt"]))


def test_a_precision_of_exported_files_alone_is_refused(capsys):
    """They have their own; a checkpoint beside them takes it."""
    with pytest.raises(SystemExit):
        entry.parse_arguments(["a.int8.onnx", "b.pt2", "--precision", "bf16"])
    assert "--precision: without effect" in capsys.readouterr().err
    assert entry.parse_arguments(["a.onnx", "last.pt", "--precision", "bf16"]).precision == "bf16"


@contextlib.contextmanager
def browser_tab(address: str):
    """The page in headless Chromium, with a camera that shows a moving disc."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="optional: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", *camera]
        )
        tab = browser.new_page()
        asked = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(address)
        yield tab
        browser.close()
    assert {url.split("/")[2] for url in asked if url.startswith("http")} == {address.split("/")[2]}


@pytest.mark.slow  # the tests over HTTP have the laws
def test_an_image_in_a_browser(page, image):
    """Upload, and the result is seen; no request to another server."""
    with browser_tab(page) as tab:
        tab.set_input_files("input[type=file]", str(image))
        tab.wait_for_selector(".networks figure:nth-child(2) img.classes", timeout=60_000)
        assert tab.locator(".shares tr").count() > 4
        opacity = "getComputedStyle(document.querySelector('img.classes')).opacity"
        assert tab.evaluate(opacity) == "0.55"
        tab.locator("input[type=range]").fill("0.2")
        tab.wait_for_function(f"{opacity} == '0.2'")
        with tab.expect_download() as download:
            tab.locator("a.labels").first.click()
        assert download.value.suggested_filename == "street_source_trainIds.png"


@pytest.mark.slow
def test_a_video_in_a_browser(page, tmp_path):
    """The browser can play what the page answers: a video for each network, at the same moment."""
    with browser_tab(page) as tab:
        tab.set_input_files("input[type=file]", str(write_video(tmp_path / "drive.mp4", 6)))
        tab.wait_for_selector("figure:nth-child(2) video", timeout=60_000)
        playable = "[...document.querySelectorAll('video')].every(v => v.duration > 0.5)"
        tab.wait_for_function(playable, timeout=60_000)
        assert tab.locator("figure video").count() == 2
        apart = "const [a, b] = document.querySelectorAll('video'); "
        tab.wait_for_function(f"() => {{ {apart} return a.currentTime > 0 && !b.paused }}")
        tab.evaluate(f"() => {{ {apart} b.pause(); b.currentTime = 0.5 }}")
        moment = "a.paused && Math.abs(a.currentTime - 0.5) < 0.01"
        tab.wait_for_function(f"() => {{ {apart} return {moment} }}")  # one moves the other


@pytest.mark.slow
def test_the_camera_in_a_browser(page):
    """Its pictures are segmented one after another until it is stopped."""
    with browser_tab(page) as tab:
        tab.get_by_role("tab", name="Camera").click()
        tab.get_by_text("Click to Access Webcam").click()
        tab.get_by_text("Record", exact=True).click()
        picture = ".networks figure:nth-child(2) img.classes"
        first = tab.wait_for_selector(picture, timeout=90_000).get_attribute("src")
        tab.wait_for_function(
            f"document.querySelector('{picture}').src != {first!r}", timeout=90_000
        )
        tab.get_by_text("Stop", exact=True).click()
