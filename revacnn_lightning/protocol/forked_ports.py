"""Ports that forked processes must not keep open, such as the workers of a data loader.

A forked process inherits the file descriptors of its parent. As long as it lives, its copies keep
the ports in use after the parent has closed them: the next training cannot listen on the same
port, and a viewer waits for a run that has ended.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

__all__ = ["close_in_forked_processes", "release"]

_ports: set[int] = set()
DESCRIPTORS = Path("/dev/fd")  # of this process, on Linux and macOS


def close_in_forked_processes(port: int) -> None:
    """Close the copies of the sockets of a port in every process that is forked from now on."""
    _ports.add(port)


def release(port: int) -> None:
    """Stop closing the sockets of a port: this process has closed them itself."""
    _ports.discard(port)


def _close_inherited_sockets() -> None:
    """Close what a new process has inherited: listening sockets and accepted connections."""
    if not _ports or not DESCRIPTORS.is_dir():
        return
    for name in os.listdir(DESCRIPTORS):
        with contextlib.suppress(OSError):  # closed by now, such as the one that lists the folder
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                _close_if_ours(int(name))
    _ports.clear()


def _close_if_ours(descriptor: int) -> None:
    inherited = socket.socket(fileno=descriptor)
    try:
        is_network = inherited.family in (socket.AF_INET, socket.AF_INET6)
        is_ours = is_network and inherited.getsockname()[1] in _ports
    except OSError:
        is_ours = False
    if is_ours:
        inherited.close()
    else:
        inherited.detach()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_close_inherited_sockets)
