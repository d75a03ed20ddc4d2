"""Fails when a Bokeh that changes what we rely on is about to be used."""

from __future__ import annotations

import inspect
from pathlib import Path

import bokeh
import pytest
from bokeh.server.views.ws import WSHandler

from viewer import bokeh_private, glyphs

BOKEH_JS = Path(bokeh.__file__).parent / "server" / "static" / "js" / "bokeh.js"


def test_the_version_is_the_one_the_glyphs_are_written_for() -> None:
    version = tuple(int(part) for part in bokeh.__version__.split(".")[:2])
    assert version == bokeh_private.BOKEH_VERSION


def test_the_websocket_handler_can_still_be_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WSHandler, "_async_open", WSHandler._async_open)
    monkeypatch.setattr(WSHandler, "_revacnn_nodelay", False, raising=False)
    original = WSHandler._async_open
    assert inspect.iscoroutinefunction(original)
    assert list(inspect.signature(original).parameters) == ["self", "token"]
    assert bokeh_private.send_frames_at_once() is True
    wrapped = WSHandler._async_open
    assert bokeh_private.send_frames_at_once() is True  # once is enough
    assert WSHandler._async_open is wrapped is not original
    assert hasattr(WSHandler, "set_nodelay")


def test_another_bokeh_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bokeh, "__version__", "4.0.0")
    original = WSHandler._async_open
    assert bokeh_private.send_frames_at_once() is False
    assert WSHandler._async_open is original


@pytest.mark.parametrize("name", sorted(bokeh_private.JAVASCRIPT_NAMES))
def test_bokehjs_still_has_the_names_the_drawing_uses(name: str) -> None:
    assert name in glyphs.SCRIPT.read_text() or name == "subscribed_events"
    assert name in BOKEH_JS.read_text(encoding="utf-8")


def test_the_layer_of_the_nodes_repaints_alone() -> None:
    """The reason for ``level="overlay"``: 59 instead of 2 frames per second."""
    source = BOKEH_JS.read_text(encoding="utf-8")
    assert 'if (level != "overlay")' in source
    assert "_paint_overlays" in source
