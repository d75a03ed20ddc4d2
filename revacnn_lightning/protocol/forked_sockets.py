"""Sockets that forked processes must not keep open, such as the workers of a data loader.

A forked process inherits the file descriptors of its parent. As long as it lives, its copies keep
the addresses in use after the parent has closed them: the next training cannot listen on the same
port, and a viewer waits for a run that has ended.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

__all__ = ["close_in_forked_processes", "unregister_endpoint"]

_addresses: set[int | str] = set()  # ports, and paths of Unix sockets
DESCRIPTORS = Path("/dev/fd")  # of this process, on Linux and macOS


def close_in_forked_processes(endpoint: str) -> None:
    """Make every process that is forked from now on close its copies of an endpoint's sockets."""
    _addresses.add(_address_of(endpoint))


def unregister_endpoint(endpoint: str) -> None:
    """Undo `close_in_forked_processes`: this process has closed the sockets itself."""
    _addresses.discard(_address_of(endpoint))


def _address_of(endpoint: str) -> int | str:
    """Return the port of a ``tcp://host:port`` or the path of an ``ipc://path``."""
    if endpoint.startswith("ipc://"):
        return endpoint.removeprefix("ipc://")
    port = endpoint.rpartition(":")[2]
    return int(port) if port.isdigit() else endpoint


def _close_inherited_sockets() -> None:
    """Close what a new process has inherited: listening sockets and accepted connections."""
    if not _addresses or not DESCRIPTORS.is_dir():
        return
    for name in os.listdir(DESCRIPTORS):
        with contextlib.suppress(OSError):  # closed by now, such as the one that lists the folder
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                _close_if_ours(int(name))
    _addresses.clear()


def _close_if_ours(descriptor: int) -> None:
    inherited = socket.socket(fileno=descriptor)
    try:
        is_ours = _own_address(inherited) in _addresses
    except OSError:
        is_ours = False
    if is_ours:
        inherited.close()
    else:
        inherited.detach()


def _own_address(inherited: socket.socket) -> int | str | None:
    """Return the port or path that a socket is bound to. That of a connection is its listener's."""
    if inherited.family in (socket.AF_INET, socket.AF_INET6):
        port: int = inherited.getsockname()[1]
        return port
    if inherited.family == getattr(socket, "AF_UNIX", None):
        path: str | bytes = inherited.getsockname()  # bytes: of a socket without a path
        return path if isinstance(path, str) else None
    return None


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_close_inherited_sockets)
