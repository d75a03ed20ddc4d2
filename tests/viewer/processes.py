"""Starts and stops the processes used by the viewer's tests."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from revacnn_lightning.page_server.access_token import VARIABLE, AccessToken, cookie_name

ROOT = Path(__file__).parents[2]
TOKEN = AccessToken("the-token-of-the-tests")


def wait_for(condition: Callable[[], bool], seconds: float = 240.0, what: str = "") -> None:
    """Wait until the condition holds; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what or condition}")
        time.sleep(0.05)


@contextlib.contextmanager
def process(runtime: Path, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``python -m <arguments>`` with its own runtime directory; end it afterwards."""
    defaults = {
        "REVACNN_RUNTIME_DIR": str(runtime),
        "BOKEH_RESOURCES": "server",
        VARIABLE: TOKEN.text,
    }
    environment = {**os.environ, **defaults, **variables}
    running = subprocess.Popen([sys.executable, "-m", *arguments], cwd=ROOT, env=environment)
    try:
        yield running
    finally:
        if running.poll() is None:
            running.terminate()
        try:
            running.wait(10)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def training(
    runtime: Path, *arguments: str
) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """Run a fake training, with one thread to leave a processor to the page."""
    return process(
        runtime, "tests.viewer.fake_training", *arguments,
        OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1",
    )  # fmt: skip


def free_port() -> int:
    """Return a port that nothing uses, and that no outgoing connection gets in the meantime."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)  # below those of connections
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


def access_cookie(address: str) -> dict[str, str]:
    """Return the cookie with which a browser may open a page of `serve`, as Playwright takes it."""
    return {"name": cookie_name(urlsplit(address).netloc), "value": TOKEN.cookie_value}


def page_request(address: str, **headers: str) -> urllib.request.Request:
    """Return a request of a browser that may open a page of `serve`."""
    cookie = access_cookie(address)
    return urllib.request.Request(
        address, headers={"Cookie": f"{cookie['name']}={cookie['value']}", **headers}
    )


@contextlib.contextmanager
def server(
    runtime: Path, folder: Path = ROOT / "viewer", port: int = 0, arguments: Sequence[str] = ()
) -> Iterator[str]:
    """Run a server of the viewer; yield the page's address."""
    with serve(runtime, folder, port, arguments) as (address, _):
        yield address


@contextlib.contextmanager
def serve(
    runtime: Path, folder: Path = ROOT / "viewer", port: int = 0, arguments: Sequence[str] = ()
) -> Iterator[tuple[str, int]]:
    """Run a server of the viewer; yield the page's address, without the token, and the process id.

    Args:
        runtime: directory of connection files.
        folder: of the app; any other one than that of this clone is served by ``bokeh serve``.
        port: to serve on; 0 for a free one.
        arguments: of the app.
    """
    port = port or free_port()
    command = ["revacnn_lightning", "view", "--no-open", "--port", str(port), *arguments]
    if folder != ROOT / "viewer":
        command = ["bokeh", "serve", str(folder), "--port", str(port), "--log-level", "warning"]
        command += ["--args", *arguments] if arguments else []
    with process(runtime, *command) as running:
        address = f"http://localhost:{port}/{folder.name}"

        def is_serving() -> bool:
            assert running.poll() is None, "the server has ended"
            try:
                with urllib.request.urlopen(page_request(address), timeout=30) as response:
                    return bool(response.status == 200)
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                return False

        wait_for(is_serving, 300, "the server to respond")  # slow on a busy machine
        yield address, running.pid
