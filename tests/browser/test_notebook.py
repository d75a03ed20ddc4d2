"""The viewer in a notebook: a page of another origin embeds it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from revacnn_lightning.client.embedded_viewer import EmbeddedViewer
from tests.viewer.processes import training

pytestmark = pytest.mark.browser


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@contextlib.contextmanager
def notebook(cell: str, folder: Path) -> Iterator[str]:
    """Serve a page with the output of a cell; yield its address."""
    (folder / "notebook.html").write_text(
        f'<!doctype html><title>Notebook</title><link rel="icon" href="data:,">{cell}'
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/notebook.html"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_cell_shows_the_training_that_the_next_cell_starts(
    tmp_path: Path, runtime_dir: Path, open_page: Any
) -> None:
    viewer = EmbeddedViewer.start()
    try:
        with notebook(viewer._repr_html_(), tmp_path) as address:
            page = open_page(address)
            frame = page.frame_locator("iframe")
            expect(frame.locator("#empty")).to_contain_text("callbacks=[ReVACNN()]")
            with training(runtime_dir, "--net", "digits"):
                expect(frame.locator("#run-state")).to_contain_text("training")
                expect(frame.locator('.column[data-layer="conv2"]')).to_be_visible()
    finally:
        viewer.close()
