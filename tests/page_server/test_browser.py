"""The page is opened without its token in the arguments of a process."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import pytest

from revacnn_lightning.page_server.browser import open_in_browser

ADDRESS = "http://127.0.0.1:5006/?token=a&b"


def test_the_browser_gets_a_private_file(monkeypatch: pytest.MonkeyPatch, runtime_dir: Path):
    """Other users of the machine could read the token in the arguments of the browser."""
    opened: list[str] = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "open", opened.append)
    open_in_browser(ADDRESS)
    [file] = runtime_dir.glob("open-*.html")
    assert opened == [file.as_uri()]
    assert file.stat().st_mode & 0o777 == 0o600
    assert "url=http://127.0.0.1:5006/?token=a&amp;b" in file.read_text()


def test_nothing_is_opened_without_a_display(monkeypatch: pytest.MonkeyPatch, runtime_dir: Path):
    monkeypatch.setattr("revacnn_lightning.page_server.browser.sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(webbrowser, "open", pytest.fail)
    open_in_browser(ADDRESS)
    assert not runtime_dir.exists()


def test_the_viewer_goes_on_if_the_file_cannot_be_private(
    monkeypatch: pytest.MonkeyPatch, runtime_dir: Path, caplog: pytest.LogCaptureFixture
):
    runtime_dir.mkdir()
    runtime_dir.chmod(0o777)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "open", pytest.fail)
    open_in_browser(ADDRESS)
    assert "Open the address yourself" in caplog.text
