"""Fails when a Bokeh that changes what we rely on is about to be used."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bokeh
import numpy as np
import pytest
from bokeh.core.types import ID
from bokeh.document import Document
from bokeh.models import ColumnDataSource
from bokeh.protocol import Protocol
from bokeh.server.connection import ServerConnection
from bokeh.server.session import ServerSession
from bokeh.server.views.ws import WSHandler
from tornado.ioloop import IOLoop

from tests.viewer.loops import run
from viewer import bokeh_private, glyphs

STATIC = Path(bokeh_private.__file__).parent / "static"
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


def test_another_bokeh_is_drawn_with_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bokeh_private.may_draw()
    monkeypatch.setattr(bokeh, "__version__", "3.10.1")
    assert not bokeh_private.may_draw()


class Handler:
    """Stands where a page's websocket handler does."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.at_once: list[bool] = []
        self.ws_connection = object()

    def set_nodelay(self, value: bool) -> None:
        self.at_once.append(value)

    async def send_message(self, message: Any) -> None:
        self.messages.append(message)


@pytest.fixture
def session() -> Iterator[tuple[ServerSession, Document, Handler]]:
    """A session of Bokeh's with one connected page."""
    document, handler = Document(), Handler()
    session = ServerSession(ID("a"), document, io_loop=IOLoop(make_current=False))
    ServerConnection(Protocol(), handler, None, session)  # type: ignore[arg-type]
    yield session, document, handler
    session.destroy()


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # Bokeh drops them
def test_all_changes_of_a_callback_are_one_message(
    monkeypatch: pytest.MonkeyPatch, session: tuple[ServerSession, Document, Handler]
) -> None:
    """Uses what `send_changes_together` relies on: fails when Bokeh writes changes otherwise."""
    original = ServerConnection.send_patch_document
    monkeypatch.setattr(ServerConnection, "send_patch_document", original)
    monkeypatch.setattr(ServerConnection, "_revacnn_together", False, raising=False)
    assert bokeh_private.send_changes_together() is True
    server, document, handler = session
    first, second = glyphs.PageLink(), ColumnDataSource({"x": np.zeros(3)})

    def change() -> None:
        first.width += 1
        second.data = {"x": np.ones(3)}
        first.width += 1

    def build() -> None:
        document.add_root(first)
        document.add_root(second)

    def fail() -> None:
        first.width += 1
        raise ArithmeticError

    for callback in (build, change):
        run(server.with_document_locked(callback))
    with pytest.raises(ArithmeticError):
        run(server.with_document_locked(fail))
    run(server.with_document_locked(change))
    assert [len(message.content["events"]) for message in handler.messages] == [2, 3, 3]
    assert handler.at_once == [False, True] * 3


def test_where_changes_cannot_be_gathered_they_are_sent_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bokeh, "__version__", "4.0.0")
    monkeypatch.setattr(ServerConnection, "_revacnn_together", False, raising=False)
    original = ServerConnection.send_patch_document
    assert bokeh_private.send_changes_together() is False
    assert ServerConnection.send_patch_document is original


@pytest.mark.parametrize("name", sorted(bokeh_private.JAVASCRIPT_NAMES))
def test_bokehjs_still_has_the_names_the_drawing_uses(name: str) -> None:
    scripts = [glyphs.SCRIPT, *STATIC.glob("*.js")]
    assert any(name in script.read_text(encoding="utf-8") for script in scripts)
    assert name in BOKEH_JS.read_text(encoding="utf-8")


def test_the_layer_of_the_nodes_repaints_alone() -> None:
    """The reason for ``level="overlay"``: 59 instead of 2 frames per second."""
    source = BOKEH_JS.read_text(encoding="utf-8")
    assert 'if (level != "overlay")' in source
    assert "_paint_overlays" in source
