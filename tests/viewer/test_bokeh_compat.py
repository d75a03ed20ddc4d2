"""The patches of Bokeh's server, and what they rely on."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bokeh.core.types import ID
from bokeh.document import Document
from bokeh.document.events import ModelChangedEvent
from bokeh.models import ColumnDataSource
from bokeh.protocol import Protocol
from bokeh.protocol.messages.patch_doc import patch_doc
from bokeh.server.connection import ServerConnection
from bokeh.server.session import ServerSession
from bokeh.server.views.ws import WSHandler
from tornado.ioloop import IOLoop
from tornado.iostream import StreamClosedError
from tornado.locks import Lock
from tornado.websocket import WebSocketProtocol13

from tests.viewer.loops import run
from viewer import bokeh_compat
from viewer.tab.page_link import PageLink


@pytest.fixture(autouse=True)
def unpatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bokeh as it is, and as it is again after the test."""
    for kind, name in (
        (WSHandler, "_async_open"),
        (WSHandler, "send_message"),
        (ServerConnection, "send_patch_document"),
    ):
        if hasattr(kind, name):
            monkeypatch.setattr(kind, name, getattr(kind, name))
            monkeypatch.setattr(kind, f"_revacnn_{name}", False, raising=False)


def test_nagle_is_disabled_once() -> None:
    original = WSHandler._async_open
    assert inspect.iscoroutinefunction(original)
    assert bokeh_compat.disable_nagle() is True
    wrapped = WSHandler._async_open
    assert bokeh_compat.disable_nagle() is True
    assert WSHandler._async_open is wrapped is not original


def test_a_bokeh_without_what_a_patch_needs_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def opened(self: Any) -> None: ...
    async def sent(self: Any, message: Any, more: Any) -> None: ...

    monkeypatch.setattr(WSHandler, "_async_open", opened)
    monkeypatch.setattr(WSHandler, "send_message", sent)
    monkeypatch.delattr(ServerConnection, "send_patch_document", raising=False)
    assert bokeh_compat.apply_patches() == []
    assert WSHandler._async_open is opened
    assert WSHandler.send_message is sent
    assert not hasattr(ServerConnection, "send_patch_document")


@pytest.mark.parametrize(
    ("names", "expected"), [("", []), ("nodelay, whole", ["nodelay", "whole"])]
)
def test_the_environment_names_the_patches(
    monkeypatch: pytest.MonkeyPatch, names: str, expected: list[str]
) -> None:
    original = WSHandler._async_open
    monkeypatch.setenv(bokeh_compat.VARIABLE, names)
    assert bokeh_compat.apply_patches() == expected
    assert (WSHandler._async_open is original) == (not expected)


class Handler:
    """A stand-in for the websocket handler of a page."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    async def send_message(self, message: Any) -> None:
        self.messages.append(message)


@pytest.fixture
def session() -> Iterator[tuple[ServerSession, Document, Handler]]:
    """A session of Bokeh's with one connected page, and its handler."""
    document, handler = Document(), Handler()
    session = ServerSession(ID("a"), document, io_loop=IOLoop(make_current=False))
    ServerConnection(Protocol(), handler, None, session)  # type: ignore[arg-type]
    yield session, document, handler
    session.destroy()


needs_single_patches = pytest.mark.skipif(
    not hasattr(ServerConnection, "send_patch_document"),
    reason="this Bokeh sends changes in another way",
)


@needs_single_patches
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # Bokeh drops them
def test_all_changes_of_a_callback_are_one_message(
    session: tuple[ServerSession, Document, Handler],
) -> None:
    assert bokeh_compat.merge_changes() is True
    server, document, handler = session
    first, second = PageLink(), ColumnDataSource({"x": np.zeros(3)})

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


@pytest.mark.skipif(not hasattr(patch_doc, "add_buffers"), reason="not used with this Bokeh")
def test_a_frame_alone_makes_the_message_that_bokeh_makes() -> None:
    link = PageLink(frame=(0, b"first"))
    document = Document()
    document.add_root(link)
    document.models.flush_synced()  # the page has it
    event = ModelChangedEvent(document, link, "frame", (1, b"second"))
    assert bokeh_compat._is_plain(event)
    assert not bokeh_compat._is_plain(ModelChangedEvent(document, link, "seen", 3))
    ours, theirs = bokeh_compat._patch([event]), Protocol().create("PATCH-DOC", [event])
    assert [buffer.to_bytes() for buffer in ours._buffers] == [b"second"]
    assert ours.header["num_buffers"] == 1
    texts = [
        message.content_json.replace(message._buffers[0].id, "id") for message in (ours, theirs)
    ]
    assert texts[0] == texts[1]


class Stream:
    """A stand-in for the stream of a connection."""

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
    """A websocket handler of Bokeh's that writes to this stream."""
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


def test_a_whole_message_is_what_bokeh_writes_in_parts() -> None:
    original = WSHandler.send_message
    message = message_with(3, 125, 126, 65535, 65536)
    in_parts, at_once = Stream(), Stream()
    run(original(handler_of(in_parts), message))
    assert bokeh_compat.write_whole_messages() is True
    assert WSHandler.send_message is not original
    handler = handler_of(at_once)
    run(WSHandler.send_message(handler, message))

    assert len(in_parts.written) == 3 + 2 * 5
    assert at_once.written == [b"".join(in_parts.written)]

    at_once.broken = True
    run(WSHandler.send_message(handler, message))  # a page that was closed is no error
    assert len(at_once.written) == 1
