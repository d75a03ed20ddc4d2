"""The model that a tab and the server share: frames go to the page, commands come from it."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from bokeh.core.properties import Bool, Bytes, Int, Nullable, String, Tuple
from bokeh.document import Document
from bokeh.model import DataModel

__all__ = ["PageCommand", "PageLink", "decode_command", "is_connected"]

log = logging.getLogger(__name__)


class PageCommand(msgspec.Struct, frozen=True):
    """What a button, a key or a gesture asks for: see `viewer/tab/commands.py`.

    ``serial`` numbers the commands of a page, so that each is a change of ``PageLink.command``.
    """

    name: str = ""
    args: dict[str, Any] = {}
    serial: int = 0


class PageLink(DataModel):
    """The properties through which the server and the page of a tab exchange data.

    The server sends numbered frames. Once the page has painted a frame that says ``confirm``, it
    sets ``seen`` to its number, and the server may send the next one. The page sends commands,
    and the state of its window. ``viewer/static/shared/link.js`` is its side of the link.
    """

    # Its serial number, and the bytes of viewer/rendering/frame_codec.py. BokehJS compares a new
    # value with the old one; with a number that differs first, it never compares the bytes.
    frame = Nullable(Tuple(Int, Bytes))
    beat = Int(default=0)  # counted up where no frame is sent: without either, the server hangs
    seen = Int(default=-1)  # -1: the page has not drawn anything yet
    command = String(default="")  # a `PageCommand` as JSON
    visible = Bool(default=True)
    theme = String(default="dark")
    width = Int(default=0)  # px, of the network view
    height = Int(default=0)


def decode_command(text: str) -> PageCommand | None:
    """Return the command that a page has sent; None, with a warning logged, if it is invalid."""
    try:
        return msgspec.json.decode(text, type=PageCommand)
    except msgspec.DecodeError as error:
        log.warning("Ignored an invalid command of the page: %s", error)
        return None


def is_connected(document: Document) -> bool:
    """Return whether a browser shows a document: Bokeh keeps that of a closed tab for a while."""
    session = getattr(document.session_context, "session", None)
    return session is None or session.connection_count > 0
