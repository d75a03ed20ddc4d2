"""Who has sent a request: its key, and where it comes from."""

from __future__ import annotations

import re
from typing import NamedTuple

import zmq

from revacnn_lightning.protocol.access_keys import AccessKey

__all__ = ["RequestSender", "connection_property", "describe_address"]

PEER_ADDRESS = "Peer-Address"
_UNIX_SOCKET = re.compile(r"(?:localhost)?:\d+:\d+:(\d+)")


class RequestSender(NamedTuple):
    """The client of a request.

    ``routing_id`` is that of its connection. ``address`` is what the system says about the other
    end of the connection, in words; "" if it says nothing.
    """

    routing_id: bytes
    key: AccessKey
    address: str = ""


def connection_property(frame: zmq.Frame, name: str) -> str:
    """Return a ZeroMQ property of the connection that a frame arrived on; "" if it has none."""
    try:
        return str(frame.get(name))
    except zmq.ZMQError:
        return ""


def describe_address(address: str, forwarder_pid: int = 0) -> str:
    """Return in words where a client has connected from.

    Args:
        address: what libzmq says: an IP address, or ``localhost:uid:gid:pid`` of a Unix socket.
        forwarder_pid: pid of the process that holds the TCP ports of this run.
    """
    match = _UNIX_SOCKET.fullmatch(address)
    if match is None:
        return address
    return "its TCP port" if int(match[1]) == forwarder_pid else f"process {match[1]}"
