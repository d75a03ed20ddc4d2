"""The one private interface of Bokeh's server that the viewer uses.

The patch checks that what it needs is there, and otherwise leaves Bokeh as it is: the page works
without it, and only lags.
"""

from __future__ import annotations

import inspect
import logging
from typing import Any

import bokeh
from bokeh.server.views.ws import WSHandler

__all__ = ["disable_nagle"]

log = logging.getLogger(__name__)

MARKER = "_revacnn_nodelay"


def disable_nagle() -> bool:
    """Disable Nagle's algorithm for the websockets of pages; return whether that was possible.

    Bokeh sends an update as several small frames. With Nagle's algorithm, each waits until the
    browser has acknowledged the one before, which delays an update by 30 to 50 ms.
    """
    if getattr(WSHandler, MARKER, False):  # one server may load the viewer twice
        return True
    original = getattr(WSHandler, "_async_open", None)
    if original is None or not hasattr(WSHandler, "set_nodelay"):
        return _explain()
    if tuple(inspect.signature(original).parameters) != ("self", "token"):
        return _explain()

    async def _async_open(self: Any, token: str) -> None:
        if self.ws_connection is not None:  # None: already closed
            self.set_nodelay(True)
        await original(self, token)

    WSHandler._async_open = _async_open
    setattr(WSHandler, MARKER, True)
    return True


def _explain() -> bool:
    log.info("Bokeh %s: Nagle's algorithm stays enabled, so updates may lag", bokeh.__version__)
    return False
