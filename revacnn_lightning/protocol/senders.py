"""Who has sent a request: its key, and where it comes from."""

from __future__ import annotations

import re
from typing import NamedTuple

import zmq

from revacnn_lightning.protocol.access_keys import AccessKey

__all__ = ["Sender", "describe_address", "property_of"]

PEER_ADDRESS = "Peer-Address"
_UNIX_SOCKET = re.compile(r"(?:localhost)?:\d+:\d+:(\d+)")


class Sender(NamedTuple):
    """The client of a request.

    ``routing_id`` is that of its connection. ``address`` is what the system says about the other
    end of the connection, in words; "" if it says nothing.
    """

    routing_id: bytes
    key: AccessKey
    address: str = ""


def property_of(frame: zmq.Frame, name: str) -> str:
    """Return a property of the connection that a frame arrived on; "" if it has none."""
    try:
        return str(frame.get(name))
    except zmq.ZMQError:
        return ""


def describe_address(address: str, forwarder: int = 0) -> str:
    """Return an address of libzmq in words.

    Args:
        address: an IP address or, of a Unix socket, ``localhost:uid:gid:pid``.
        forwarder: pid of the process that holds the TCP ports of this run.
    """
    match = _UNIX_SOCKET.fullmatch(address)
    if match is None:
        return address
    return "its TCP port" if int(match[1]) == forwarder else f"process {match[1]}"
