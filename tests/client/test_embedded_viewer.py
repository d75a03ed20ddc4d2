"""The viewer's page in a notebook."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from revacnn_lightning import RevacnnError
from revacnn_lightning.client import embedded_viewer, viewer_process
from revacnn_lightning.client.embedded_viewer import EmbeddedViewer, show
from revacnn_lightning.client.viewer_process import ViewerProcess
from revacnn_lightning.protocol.connection_file import Connection

CONNECTION = Connection("run", "tcp://127.0.0.1:1", "tcp://127.0.0.1:2", "x" * 40)


class SimulatedProcess:
    def __init__(self, arguments: list[str]) -> None:
        self.arguments = arguments
        self.address = 'http://127.0.0.1:5006/?token="<>'
        self.running = True

    def is_running(self) -> bool:
        return self.running

    def stop(self) -> None:
        self.running = False


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[SimulatedProcess]:
    processes: list[SimulatedProcess] = []

    def start(arguments: list[str] | None = None) -> SimulatedProcess:
        processes.append(SimulatedProcess(arguments or []))
        return processes[-1]

    monkeypatch.setattr(ViewerProcess, "start", start)
    monkeypatch.setattr(embedded_viewer, "_shown", None)
    return processes


def test_the_viewer_of_a_run_gets_a_private_connection_file(started: list[SimulatedProcess]):
    viewer = EmbeddedViewer.start(CONNECTION)
    frame, option, file = started[0].arguments
    assert (frame, option) == ("--allow-frame", "--connect")
    assert Path(file).stat().st_mode & 0o777 == 0o600
    assert Path(file).parent.stat().st_mode & 0o777 == 0o700
    viewer.close()
    viewer.close()
    assert not Path(file).exists()
    assert not started[0].running


def test_the_page_is_embedded_with_its_address_escaped(started: list[SimulatedProcess]):
    viewer = EmbeddedViewer.start(CONNECTION)
    viewer.set_height(500)
    html = viewer._repr_html_()
    viewer.close()
    assert 'src="http://127.0.0.1:5006/?token=&quot;&lt;&gt;"' in html
    assert 'height="500"' in html


def test_repeated_calls_show_the_same_viewer(started: list[SimulatedProcess]):
    first = show()
    assert show(height=300) is first
    assert first.height == 300
    started[0].running = False
    assert show() is not first


def test_a_viewer_that_does_not_start_raises(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(viewer_process, "START_SECONDS", 30.0)
    with pytest.raises(RevacnnError, match="did not start"):
        ViewerProcess.start(["--no-such-option"])


def test_a_viewer_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The time limit was checked only when the viewer printed a line."""
    hanging = tmp_path / "hanging"
    hanging.write_text("#!/bin/sh\nexec sleep 600\n")
    hanging.chmod(0o700)
    monkeypatch.setattr(viewer_process.sys, "executable", str(hanging))
    monkeypatch.setattr(viewer_process, "START_SECONDS", 0.1)
    with pytest.raises(RevacnnError, match="did not start"):
        ViewerProcess.start()


@pytest.mark.slow
def test_the_page_is_served_until_it_is_closed():
    viewer = EmbeddedViewer.start()
    try:
        frame = {"Sec-Fetch-Dest": "iframe"}
        request = urllib.request.Request(viewer.address, headers=frame)
        with urllib.request.urlopen(request, timeout=30) as page:
            assert page.status == 200
    finally:
        viewer.close()
    assert not viewer.is_running()
