"""The patches of Bokeh's server, and what they rely on."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from bokeh.core.types import ID
from bokeh.document import Document
from bokeh.document.events import ColumnDataChangedEvent, ModelChangedEvent
from bokeh.models import ColumnDataSource
from bokeh.protocol import Protocol
from bokeh.protocol.messages.patch_doc import patch_doc
from bokeh.server.connection import ServerConnection
from bokeh.server.session import ServerSession
from bokeh.server.views.ws import WSHandler
from tornado.ioloop import IOLoop

from tests.viewer.loops import run
from viewer import bokeh_compat
from viewer.tab.page_link import PageLink


@pytest.fixture(autouse=True)
def unpatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bokeh as it is, and as it is again after the test."""
    for kind, name in (
        (WSHandler, "_async_open"),
        (ServerConnection, "send_patch_document"),
    ):
        if hasattr(kind, name):
            monkeypatch.setattr(kind, name, getattr(kind, name))
            monkeypatch.setattr(kind, f"_revacnn_{name}", False, raising=False)


def test_nagle_is_disabled_once() -> None:
    original = WSHandler._async_open
    assert inspect.iscoroutinefunction(original)
    assert bokeh_compat.disable_websocket_nagle() is True
    wrapped = WSHandler._async_open
    assert bokeh_compat.disable_websocket_nagle() is True
    assert WSHandler._async_open is wrapped is not original


def test_a_bokeh_without_what_a_patch_needs_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def opened(self: Any) -> None: ...

    monkeypatch.setattr(WSHandler, "_async_open", opened)
    monkeypatch.delattr(ServerConnection, "send_patch_document", raising=False)
    assert bokeh_compat.apply_enabled_patches() == []
    assert WSHandler._async_open is opened
    assert not hasattr(ServerConnection, "send_patch_document")


@pytest.mark.parametrize(
    ("names", "expected"), [("", []), ("nodelay", ["nodelay"]), ("other, nodelay", ["nodelay"])]
)
def test_the_environment_names_the_patches(
    monkeypatch: pytest.MonkeyPatch, names: str, expected: list[str]
) -> None:
    original = WSHandler._async_open
    monkeypatch.setenv(bokeh_compat.VARIABLE, names)
    assert bokeh_compat.apply_enabled_patches() == expected
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
    assert bokeh_compat.send_changes_in_one_message() is True
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


def changes_of_a_page() -> list[Any]:
    """Two models that the page has, and changes of them that refer to no other model."""
    document, link = Document(), PageLink(frame=(0, b"first"))
    source = ColumnDataSource({"x": np.zeros(3)})
    document.add_root(link)
    document.add_root(source)
    document.models.flush_synced()
    columns = {"x": np.ones(3), "color": ["#fff"] * 3}
    return [
        ModelChangedEvent(document, link, "frame", (1, b"second")),
        ModelChangedEvent(document, link, "seen", 3),
        ColumnDataChangedEvent(document, source, "data", columns, None),
        ColumnDataChangedEvent(document, source, "data", cols=["x"]),
    ]


@pytest.mark.skipif(not hasattr(patch_doc, "add_buffers"), reason="not used with this Bokeh")
@pytest.mark.parametrize("i", range(4))
def test_a_plain_change_makes_the_message_that_bokeh_makes(i: int) -> None:
    event = changes_of_a_page()[i]
    assert bokeh_compat._is_plain(event)
    ours, theirs = bokeh_compat._patch([event]), Protocol().create("PATCH-DOC", [event])
    assert [one.to_bytes() for one in ours._buffers] == [one.to_bytes() for one in theirs._buffers]
    assert ours.header.get("num_buffers") == theirs.header.get("num_buffers")
    texts = []
    for message in (ours, theirs):
        text = message.content_json
        for buffer in message._buffers:
            text = text.replace(buffer.id, "id")
        texts.append(text)
    assert texts[0] == texts[1]


def test_a_change_that_refers_to_a_model_is_not_plain() -> None:
    document, source = Document(), ColumnDataSource()
    for value in (source, [source], {"a": source}, np.array([source])):
        assert not bokeh_compat._is_plain(ModelChangedEvent(document, source, "tags", value))
