"""Who has sent a request: its key, and where it comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import zmq

from revacnn_lightning.protocol.access_keys import AccessKey

__all__ = ["NO_TITLES", "RequestSender", "connection_property", "describe_address"]

PEER_ADDRESS = "Peer-Address"
NO_TITLES: Mapping[int, str] = MappingProxyType({})
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


def describe_address(address: str, titles: Mapping[int, str] = NO_TITLES) -> str:
    """Return in words where a client has connected from.

    Args:
        address: what libzmq says: an IP address, or ``localhost:uid:gid:pid`` of a Unix socket.
        titles: what to call the processes that forward to this run, by their pids.
    """
    match = _UNIX_SOCKET.fullmatch(address)
    if match is None:
        return address
    return titles.get(int(match[1]), f"process {match[1]}")
