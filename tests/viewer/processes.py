"""Starts and stops the processes used by the viewer's tests."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


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
    defaults = {"REVACNN_RUNTIME_DIR": str(runtime), "BOKEH_RESOURCES": "server"}
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def server(
    runtime: Path, folder: Path = ROOT / "viewer", port: int = 0, arguments: Sequence[str] = ()
) -> Iterator[str]:
    """Run a Bokeh server with the viewer; yield the page's address."""
    with serve(runtime, folder, port, arguments) as (address, _):
        yield address


@contextlib.contextmanager
def serve(
    runtime: Path, folder: Path = ROOT / "viewer", port: int = 0, arguments: Sequence[str] = ()
) -> Iterator[tuple[str, int]]:
    """Run a Bokeh server with the viewer; yield the page's address and the process id."""
    port = port or free_port()
    command = ["bokeh", "serve", str(folder), "--port", str(port), "--log-level", "warning"]
    command += ["--args", *arguments] if arguments else []
    with process(runtime, *command) as running:
        address = f"http://localhost:{port}/{folder.name}"

        def is_serving() -> bool:
            assert running.poll() is None, "the server has ended"
            try:
                with urllib.request.urlopen(address, timeout=30) as response:
                    return bool(response.status == 200)
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                return False

        wait_for(is_serving, 300, "the server to respond")  # slow on a busy machine
        yield address, running.pid
