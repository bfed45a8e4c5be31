"""Serves the page on this machine: 127.0.0.1, without any other address."""

import asyncio
import contextlib
import logging
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

MOST_BYTES = "500mb"
"""Size of the largest upload."""
CONTENT_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'"
)
"""The browser asks no other server: the page works without a network, and tells nobody."""
PORTS_TRIED = 100
OWN_NAMES = ("127.0.0.1", "localhost", "::1")
"""Names of this machine. A request from the page of another site has that site as its Origin, or a
Host that is none of these.
"""
SWEEP_EVERY_S = 60.0
"""Seconds between two searches for uploads that nobody uses."""


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


def foreign(host: str, origin: str | None) -> str | None:
    """Why a request is not from the page itself, by its headers Host and Origin; None if it is."""
    try:
        name = urlsplit(f"//{host}").hostname
        sender = None if origin is None else urlsplit(origin).netloc
    except ValueError:  # no address
        name, sender = None, None
    if name not in OWN_NAMES:
        return f"Found the address {host}; expected this machine: open http://127.0.0.1:PORT."
    if sender not in (None, host):
        return f"Found a request of {origin}; expected one of the page itself, at {host}."
    return None


def build_app(networks: dict, video_seconds: float, uploads: Path):
    """The web application (FastAPI) of the page; ``uploads``: folder of what visitors send."""
    os.environ |= {"GRADIO_TEMP_DIR": str(uploads), "GRADIO_ANALYTICS_ENABLED": "False"}
    import gradio as gr
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    from scripts.app.html import STYLE
    from scripts.app.page import Page, build

    page = Page(networks, video_seconds)

    @contextlib.asynccontextmanager
    async def sweeping(_app: FastAPI) -> AsyncIterator[None]:
        async def sweep() -> None:
            while True:
                await asyncio.sleep(SWEEP_EVERY_S)
                page.remove_unused(uploads)

        task = asyncio.create_task(sweep())
        yield
        task.cancel()

    app = FastAPI(lifespan=sweeping)

    @app.middleware("http")
    async def keep_to_this_machine(request, call_next: Callable):
        reason = foreign(request.headers.get("host", ""), request.headers.get("origin"))
        if reason is not None:
            return PlainTextResponse(reason, 403)
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = CONTENT_POLICY
        return response

    # Fonts of the system: others would be fetched.
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    return gr.mount_gradio_app(
        app,
        build(page),
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
        program = uvicorn.Server(config)
        # Pages that are open in browsers are cut off at the end, each with a traceback.
        logging.getLogger("uvicorn.error").addFilter(lambda record: not program.should_exit)
        program.run(sockets=[server])
