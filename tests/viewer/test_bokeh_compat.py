"""Fails when a Bokeh that changes what we rely on is about to be used."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bokeh
import numpy as np
import pytest
from bokeh.core.types import ID
from bokeh.document import Document
from bokeh.document.events import ModelChangedEvent
from bokeh.models import ColumnDataSource
from bokeh.protocol import Protocol
from bokeh.server.connection import ServerConnection
from bokeh.server.session import ServerSession
from bokeh.server.views.ws import WSHandler
from tornado.ioloop import IOLoop
from tornado.iostream import StreamClosedError
from tornado.locks import Lock
from tornado.websocket import WebSocketProtocol13

from tests.viewer.loops import run
from viewer import bokeh_compat, glyphs
from viewer import bokeh_compat as bokeh_private

STATIC = Path(bokeh_compat.__file__).parent / "static"
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


def test_where_changes_cannot_be_gathered_they_are_sent_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bokeh, "__version__", "4.0.0")
    monkeypatch.setattr(ServerConnection, "_revacnn_together", False, raising=False)
    original = ServerConnection.send_patch_document
    assert bokeh_private.send_changes_together() is False
    assert ServerConnection.send_patch_document is original


def test_a_frame_alone_is_packed_as_bokeh_would() -> None:
    link = glyphs.PageLink(frame=b"first")
    document = Document()
    document.add_root(link)
    document.models.flush_synced()  # the page has it
    event = ModelChangedEvent(document, link, "frame", b"second")
    assert bokeh_private._is_plain(event)
    assert not bokeh_private._is_plain(ModelChangedEvent(document, link, "seen", 3))
    ours, theirs = bokeh_private._patch([event]), Protocol().create("PATCH-DOC", [event])
    assert [buffer.to_bytes() for buffer in ours._buffers] == [b"second"]
    assert ours.header["num_buffers"] == 1
    texts = [
        message.content_json.replace(message._buffers[0].id, "id") for message in (ours, theirs)
    ]
    assert texts[0] == texts[1]


class Stream:
    """Stands where a connection's does."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.broken = False

    def closed(self) -> bool:
        return False

    async def write(self, data: bytes) -> None:
        if self.broken:
            raise StreamClosedError
        self.written.append(data)

    def set_nodelay(self, value: bool) -> None:
        pass


def handler_of(stream: Stream) -> Any:
    """A page's websocket handler of Bokeh's, that writes to this stream."""
    handler: Any = object.__new__(WSHandler)
    parameters = SimpleNamespace(ping_interval=None, ping_timeout=None, compression_options=None)
    handler.request = SimpleNamespace(connection=SimpleNamespace(stream=stream))
    handler.ws_connection = WebSocketProtocol13(handler, False, parameters)  # type: ignore[arg-type]
    handler.ws_connection.stream = stream
    handler.write_lock = Lock()
    return handler


def message_with(*sizes: int) -> Any:
    source = ColumnDataSource()
    Document().add_root(source)
    columns = {str(size): np.arange(size, dtype=np.uint8) for size in sizes}
    event = ModelChangedEvent(source.document, source, "data", columns)  # type: ignore[arg-type]
    return Protocol().create("PATCH-DOC", [event])


def test_a_message_written_at_once_is_what_bokeh_writes_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = WSHandler.send_message
    monkeypatch.setattr(WSHandler, "send_message", original)
    monkeypatch.setattr(WSHandler, "_revacnn_at_once", False, raising=False)
    message = message_with(3, 125, 126, 65535, 65536)
    in_parts, at_once = Stream(), Stream()
    run(original(handler_of(in_parts), message))
    assert bokeh_private.write_messages_at_once() is True
    assert WSHandler.send_message is not original
    handler = handler_of(at_once)
    run(WSHandler.send_message(handler, message))

    assert len(in_parts.written) == 3 + 2 * 5
    assert at_once.written == [b"".join(in_parts.written)]

    at_once.broken = True
    run(WSHandler.send_message(handler, message))  # a page that was closed is no error
    assert len(at_once.written) == 1


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
