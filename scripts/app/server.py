"""Serves the page on this machine: 127.0.0.1, without any other address."""

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

MOST_BYTES = "500mb"
"""Size of the largest upload."""
CONTENT_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'"
)
"""The browser asks no other server: the page works without a network, and tells nobody."""
PORTS_TRIED = 100


def free_socket(port: int) -> socket.socket:
    """A socket of 127.0.0.1 at ``port``, or at the next port that is free.

    Raises OSError if all of PORTS_TRIED ports are in use.
    """
    last = min(port + PORTS_TRIED, 65536) - 1
    for candidate in range(port, last + 1):
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            server.bind(("127.0.0.1", candidate))
            server.listen()
        except OSError:
            server.close()
            continue
        if candidate != port:
            print(f"NOTE: port {port} is in use; the page is at port {candidate}.")
        return server
    raise OSError(f"The ports {port} to {last} are in use. Choose another --port.")


def build_app(networks: dict, video_seconds: float, uploads: Path):
    """The web application (FastAPI) of the page; ``uploads``: folder of what visitors send."""
    os.environ |= {"GRADIO_TEMP_DIR": str(uploads), "GRADIO_ANALYTICS_ENABLED": "False"}
    import gradio as gr
    from fastapi import FastAPI

    from scripts.app.html import STYLE
    from scripts.app.page import Page, build

    app = FastAPI()

    @app.middleware("http")
    async def keep_to_this_machine(request, call_next: Callable):
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = CONTENT_POLICY
        return response

    # Fonts of the system: others would be fetched.
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    return gr.mount_gradio_app(
        app,
        build(Page(networks, video_seconds)),
        path="/",
        max_file_size=MOST_BYTES,
        footer_links=[],
        theme=theme,
        css=STYLE,
        ssr_mode=False,
        pwa=False,
        enable_monitoring=False,
    )


def serve(networks: dict, port: int, video_seconds: float) -> None:
    """Serves the page until Ctrl-C; removes what visitors have uploaded.

    Raises OSError if there is no free port.
    """
    import uvicorn

    with free_socket(port) as server, tempfile.TemporaryDirectory() as uploads:
        app = build_app(networks, video_seconds, Path(uploads))
        print(
            f"Open http://127.0.0.1:{server.getsockname()[1]} in a browser; Ctrl-C ends.",
            flush=True,
        )
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3)
        uvicorn.Server(config).run(sockets=[server])
