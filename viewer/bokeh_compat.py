"""Every private interface of Bokeh that the viewer uses, named here and nowhere else.

Bokeh's minor version is pinned for their sake; ``tests/viewer/test_bokeh_private.py`` fails when
one of them changes.
"""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Iterator
from typing import Any

import bokeh
from bokeh.core.serialization import Serializer
from bokeh.document.events import DocumentPatchedEvent, ModelChangedEvent
from bokeh.protocol.message import Message
from bokeh.protocol.messages.patch_doc import patch_doc
from bokeh.server.connection import ServerConnection
from bokeh.server.views.ws import WSHandler
from tornado.iostream import StreamClosedError

__all__ = [
    "BOKEH_VERSION",
    "JAVASCRIPT_NAMES",
    "may_draw",
    "send_changes_together",
    "send_frames_at_once",
    "write_messages_at_once",
]

log = logging.getLogger(__name__)

BOKEH_VERSION = (3, 9)

# BokehJS names that ``glyphs/dist/revacnn_glyphs.js`` and ``static/*.js`` rely on, and where.
JAVASCRIPT_NAMES = {
    "_paint": "glyph views draw in it",
    "canvas_view": "plot view: its canvases",
    "default_view": "model prototypes: the view that draws them",
    "pixel_ratio": "canvas view: device pixels per CSS pixel",
    "overlays": "canvas view: the layer with what is painted above all else",
    "overlays_el": "canvas view: the element above the plot's canvas",
    "plot_view": "renderer view: the plot's view",
    "primary": "canvas view: the layer with what a plot has painted",
    "repainted": "plot view: signals that it has painted",
    "request_paint": "plot view: paint soon",
    "sync: false": "setv of models: an option, not to send a change to the server",
    "underlays_el": "canvas view: the element below the plot's canvas",
    "v_compute": "scales: many places at once",
    "xscale": "renderer view: from data to the screen",
}


def may_draw() -> bool:
    """Whether the network view may be drawn by glyphs of our own, which rely on the names above."""
    return _version() == BOKEH_VERSION


def send_frames_at_once() -> bool:
    """Switch Nagle's algorithm off for the page's websocket; False if this Bokeh is unknown.

    Bokeh sends an update as several small frames. With Nagle, each waits for the page's
    acknowledgement of the one before: 40-50 ms per update instead of 9.
    """
    if not _is_known(WSHandler, "_async_open"):
        return False
    if getattr(WSHandler, "_revacnn_nodelay", False):
        return True
    original = WSHandler._async_open

    async def _async_open(self: Any, token: str) -> None:
        if self.ws_connection is not None:  # None: closed again already
            self.set_nodelay(True)
        await original(self, token)

    WSHandler._async_open = _async_open
    WSHandler._revacnn_nodelay = True
    return True


def send_changes_together() -> bool:
    """Send all that one callback changes as one message; False if this Bokeh is unknown.

    Bokeh sends every changed property by itself, as a message of which server and page each make
    several tasks. A session writes what was changed once its callback is through
    (``ServerSession._pending_writes``), so the first write may take all changes along.
    """
    if not _is_known(ServerConnection, "send_patch_document"):
        return False
    if getattr(ServerConnection, "_revacnn_together", False):
        return True

    def send_patch_document(self: Any, event: DocumentPatchedEvent) -> Any:
        # A list of its own for every callback; that of one which failed is never written.
        writes = self.session._pending_writes
        known, changes = self.__dict__.get("_revacnn_changes", (None, []))
        if writes is None or known is not writes:
            changes = []
            self._revacnn_changes = writes, changes
        changes.append(event)
        return _send(self, changes) if len(changes) == 1 else _sent_already()

    ServerConnection.send_patch_document = send_patch_document
    ServerConnection._revacnn_together = True
    return True


async def _send(connection: Any, changes: list[DocumentPatchedEvent]) -> None:
    plain = all(_is_plain(change) for change in changes)
    message = _patch(changes) if plain else connection.protocol.create("PATCH-DOC", changes)
    await connection._socket.send_message(message)


def _is_plain(change: DocumentPatchedEvent) -> bool:
    """Whether a change speaks of no other model than the one that has changed."""
    return isinstance(change, ModelChangedEvent) and isinstance(change.new, bytes)


def _patch(changes: list[DocumentPatchedEvent]) -> patch_doc:
    """As Bokeh makes the message, but without going through all models of the document first."""
    serializer = Serializer()
    message = patch_doc(patch_doc.create_header(), {}, {"events": serializer.encode(changes)})
    message.add_buffers(*serializer.buffers)
    return message


async def _sent_already() -> None:
    pass


def write_messages_at_once() -> bool:
    """Write a message of Bokeh's with one call; False if this Bokeh is unknown.

    Bokeh sends each of a message's five parts or more by itself: as many calls of the system, as
    many tasks here, and as often the browser is woken up.
    """
    if not _is_known(WSHandler, "send_message"):
        return False
    if getattr(WSHandler, "_revacnn_at_once", False):
        return True
    original = WSHandler.send_message

    async def send_message(self: Any, message: Message[Any]) -> None:
        connection = self.ws_connection
        if connection is None or connection.is_closing() or connection._compressor is not None:
            await original(self, message)
            return
        try:
            with await self.write_lock.acquire():
                await connection.stream.write(b"".join(_framed(message)))
        except StreamClosedError:
            log.debug("A page was closed while it was sent something")

    WSHandler.send_message = send_message
    WSHandler._revacnn_at_once = True
    return True


TEXT, BINARY, LAST = 0x1, 0x2, 0x80  # of a websocket's frames: RFC 6455, section 5.2


def _framed(message: Message[Any]) -> Iterator[bytes]:
    """The parts of a message, each as a frame of the websocket."""
    for part in (message.header_json, message.metadata_json, message.content_json):
        yield from _frame(TEXT, part.encode())
    for buffer in message._buffers:
        yield from _frame(TEXT, json.dumps(buffer.ref).encode())
        yield from _frame(BINARY, buffer.to_bytes())


def _frame(kind: int, payload: bytes) -> tuple[bytes, bytes]:
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", LAST | kind, size), payload
    if size < 2**16:
        return struct.pack("!BBH", LAST | kind, 126, size), payload
    return struct.pack("!BBQ", LAST | kind, 127, size), payload


def _is_known(kind: type, name: str) -> bool:
    if _version() == BOKEH_VERSION and hasattr(kind, name):
        return True
    log.warning("Bokeh %s is not known to this viewer; updates may lag", bokeh.__version__)
    return False


def _version() -> tuple[int, ...]:
    return tuple(int(part) for part in bokeh.__version__.split(".")[:2])
