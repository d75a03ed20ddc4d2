"""Unix sockets of a run, in a directory that only its owner can enter.

Other users of the machine cannot connect, so they cannot use up the descriptors of the training.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "HAS_UNIX_SOCKETS",
    "SocketDirectory",
    "do_sockets_exist",
    "has_listener",
    "remove_socket_directory",
]

HAS_UNIX_SOCKETS = hasattr(socket, "AF_UNIX") and os.name == "posix"
PREFIX = "revacnn-"
NAMES = ("telemetry", "requests", "run-requests")  # the last one is behind the second
MAX_PARENT_BYTES = 70  # the path of a socket has at most 103 bytes, on macOS


class SocketDirectory:
    """A new private directory for the Unix sockets of one run, until `remove`.

    Raises:
        OSError: there is no directory for temporary files.
    """

    def __init__(self) -> None:
        parent = tempfile.gettempdir()
        if len(os.fsencode(parent)) > MAX_PARENT_BYTES:
            parent = "/tmp"
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))  # of mode 700

    @property
    def endpoints(self) -> tuple[str, str]:
        """The endpoints of telemetry and requests, for viewers."""
        return f"ipc://{self.path / NAMES[0]}", f"ipc://{self.path / NAMES[1]}"

    @property
    def run_endpoints(self) -> tuple[str, str]:
        """The endpoints of the training. Only a `RateLimitingForwarder` sends requests there."""
        return f"ipc://{self.path / NAMES[0]}", f"ipc://{self.path / NAMES[2]}"

    def remove(self) -> None:
        """Remove the directory and what is left of the sockets."""
        _remove(self.path)


def do_sockets_exist(endpoints: Iterable[str]) -> bool:
    """Return whether all endpoints are Unix sockets that exist on this machine."""
    paths = [endpoint.removeprefix("ipc://") for endpoint in endpoints]
    return all(path.startswith("/") and os.path.exists(path) for path in paths)


def has_listener(endpoint: str) -> bool:
    """Return whether a process listens at the endpoint of a Unix socket, by connecting.

    A process that is stopped listens, too: it will accept the connection when it continues.
    """
    if not (HAS_UNIX_SOCKETS and endpoint.startswith("ipc:///")):
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(endpoint.removeprefix("ipc://"))
        except BlockingIOError:  # more connections wait for the process than the system allows
            return True
        except (OSError, ValueError):  # nobody does, or it is no path
            return False
    return True


def remove_socket_directory(endpoint: str) -> None:
    """Remove the socket directory of a run that was killed, given one of its endpoints."""
    directory = Path(endpoint.removeprefix("ipc://")).parent
    if endpoint.startswith("ipc://") and directory.name.startswith(PREFIX):
        _remove(directory)


def _remove(directory: Path) -> None:
    """Remove nothing but sockets: the path may come from a file."""
    for path in (directory / name for name in NAMES):
        with contextlib.suppress(OSError):
            if path.is_socket():
                path.unlink()
    with contextlib.suppress(OSError):
        directory.rmdir()
