"""Who has sent a request: its key, and where it comes from."""

from __future__ import annotations

from typing import NamedTuple

import zmq

from revacnn_lightning.protocol.access_keys import AccessKey

__all__ = ["Sender", "describe_address", "property_of"]

PEER_ADDRESS = "Peer-Address"


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
        address: an IP address or, of a Unix socket, ``:uid:gid:pid``.
        forwarder: pid of the process that holds the TCP ports of this run.
    """
    parts = address.split(":")
    if len(parts) != 4 or parts[0]:
        return address
    return "its TCP port" if parts[3] == str(forwarder) else f"process {parts[3]}"
