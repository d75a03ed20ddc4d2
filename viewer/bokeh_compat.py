"""Two patches of Bokeh's server that make updates arrive sooner.

They use private interfaces of Bokeh, named here and nowhere else. Each patch checks that what it
needs is there, and otherwise leaves Bokeh as it is: the page works without any of them, and lags.
``$REVACNN_BOKEH_PATCHES`` names those to be applied, separated by commas (``nodelay``, ``merge``;
empty for none; default: both), so that a benchmark can measure each alone. Removing one delays an
update by 5 to 20 ms at the median. A patch that saves less than 5 ms does not belong here.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable
from typing import Any

import bokeh
import numpy as np
from bokeh.core.serialization import Serializer
from bokeh.document.events import (
    ColumnDataChangedEvent,
    DocumentPatchedEvent,
    ModelChangedEvent,
)
from bokeh.protocol.messages.patch_doc import patch_doc
from bokeh.server.connection import ServerConnection
from bokeh.server.session import ServerSession
from bokeh.server.views.ws import WSHandler

__all__ = ["apply_enabled_patches", "disable_websocket_nagle", "send_changes_in_one_message"]

log = logging.getLogger(__name__)

VARIABLE = "REVACNN_BOKEH_PATCHES"


def apply_enabled_patches() -> list[str]:
    """Apply the patches that the environment names; return the names of those that could be."""
    wanted = os.environ.get(VARIABLE, ",".join(PATCHES)).replace(" ", "").split(",")
    applied = [name for name, apply in PATCHES.items() if name in wanted and apply()]
    missing = [name for name in PATCHES if name in wanted and name not in applied]
    if missing:
        log.info("Bokeh %s: without %s, updates may lag", bokeh.__version__, ", ".join(missing))
    return applied


def disable_websocket_nagle() -> bool:
    """Disable Nagle's algorithm for the websockets of pages; return whether that was possible.

    Bokeh sends an update as several small frames. With Nagle's algorithm, each waits until the
    browser has acknowledged the one before: 40-50 ms per update instead of 9.
    """
    if not _takes(WSHandler, "_async_open", "self", "token"):
        return False
    if not hasattr(WSHandler, "set_nodelay"):
        return False
    original = WSHandler._async_open

    async def _async_open(self: Any, token: str) -> None:
        if self.ws_connection is not None:  # None: already closed
            self.set_nodelay(True)
        await original(self, token)

    return _replace(WSHandler, "_async_open", _async_open)


def send_changes_in_one_message() -> bool:
    """Send all changes of one callback as one message; return whether that was possible.

    Bokeh sends every changed property as a message of its own, which costs several tasks in the
    server and in the page. A session writes what was changed once its callback is through
    (``ServerSession._pending_writes``), so the first write can take all changes along.
    """
    if not _takes(ServerConnection, "send_patch_document", "self", "event"):
        return False
    if "_pending_writes" not in ServerSession.__annotations__:
        return False

    def send_patch_document(self: Any, event: DocumentPatchedEvent) -> Any:
        # A list of its own for every callback; that of a failed callback is never written.
        writes = self.session._pending_writes
        known, changes = self.__dict__.get("_revacnn_changes", (None, []))
        if writes is None or known is not writes:
            changes = []
            self._revacnn_changes = writes, changes
        changes.append(event)
        return _send(self, changes) if len(changes) == 1 else _send_nothing()

    return _replace(ServerConnection, "send_patch_document", send_patch_document)


async def _send(connection: Any, changes: list[DocumentPatchedEvent]) -> None:
    is_plain = hasattr(patch_doc, "add_buffers") and all(_is_plain(change) for change in changes)
    message = _patch(changes) if is_plain else connection.protocol.create("PATCH-DOC", changes)
    await connection._socket.send_message(message)


def _is_plain(change: DocumentPatchedEvent) -> bool:
    """Return whether a change refers to no other model than the changed one."""
    if isinstance(change, ColumnDataChangedEvent):
        data = change.data if change.data is not None else getattr(change.model, change.attr)
        return _is_plain_value(data)
    return isinstance(change, ModelChangedEvent) and _is_plain_value(change.new)


def _is_plain_value(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain_value(one) for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain_value, value))
    if isinstance(value, np.ndarray):
        return value.dtype != object
    return value is None or isinstance(value, (bool, int, float, str, bytes))


def _patch(changes: list[DocumentPatchedEvent]) -> patch_doc:
    """Return the message that Bokeh makes, without its pass over all models of the document."""
    serializer = Serializer()
    message = patch_doc(patch_doc.create_header(), {}, {"events": serializer.encode(changes)})
    message.add_buffers(*serializer.buffers)
    return message


async def _send_nothing() -> None:
    pass


PATCHES: dict[str, Callable[[], bool]] = {
    "nodelay": disable_websocket_nagle,
    "merge": send_changes_in_one_message,
}


def _takes(kind: type, name: str, *parameters: str) -> bool:
    """Return whether a class has a method with exactly these parameters."""
    method = getattr(kind, name, None)
    return method is not None and tuple(inspect.signature(method).parameters) == parameters


def _replace(kind: type, name: str, method: Callable[..., Any]) -> bool:
    """Replace a method, unless that was done before: one server may hold the viewer twice."""
    marker = f"_revacnn_{name}"
    if not getattr(kind, marker, False):
        setattr(kind, name, method)
        setattr(kind, marker, True)
    return True
