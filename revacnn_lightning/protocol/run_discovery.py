"""Find the runs whose connection files are in the runtime directory."""

from __future__ import annotations

import contextlib
import functools
import socket
import time
from pathlib import Path

from revacnn_lightning.errors import ConnectionFileError
from revacnn_lightning.protocol import local_sockets, private_files
from revacnn_lightning.protocol.connection_file import (
    Connection,
    is_of_exited_run,
    read,
    runtime_dir,
)

__all__ = [
    "find_newest_run",
    "find_unusable_connection_files",
    "is_reachable",
    "list_runs",
    "remove_exited_runs",
    "remove_if_exited",
]

REPLY_SECONDS = 0.2  # time for another machine to accept a connection
ASK_AGAIN_SECONDS = 15.0


def list_runs() -> list[Connection]:
    """Return the live runs whose files are in the runtime directory.

    They are sorted: runs on this machine that accept connections, runs on other machines, then
    runs on this machine whose process exists while its sockets accept no connection. The newest
    comes first within each of the three. A home directory may be shared with other machines: their
    runs are returned only if they accept a connection.

    Raises:
        ConnectionFileError: other users could replace files in the directory.
    """
    runs = remove_exited_runs()
    reachable = {run.run for run in runs if is_reachable(run)}
    live = [run for run in runs if run.is_local() or run.run in reachable]
    return sorted(
        live,
        key=lambda run: (run.run in reachable, run.is_local(), run.start_time),
        reverse=True,
    )


def find_newest_run() -> Connection:
    """Return the first run of `list_runs`: the newest reachable run on this machine, if any.

    Otherwise, it is the newest reachable run on another machine. A run on this machine whose
    process exists while its sockets do not accept connections comes last.

    Raises:
        ConnectionFileError: there is no such run, a connection file cannot be used, or other users
            could replace files in the directory.
    """
    runs = list_runs()
    if not runs:
        for reason in find_unusable_connection_files().values():
            raise ConnectionFileError(reason)
        raise ConnectionFileError(
            f"no training is running (no live connection file in {runtime_dir()}); start one with "
            "Trainer(callbacks=[ReVACNN()]), or pass the connection file of a run elsewhere"
        )
    return runs[0]


def find_unusable_connection_files() -> dict[Path, str]:
    """Return the connection files that cannot be read: path -> the reason, in words.

    A file is left out if its run has exited.

    Raises:
        ConnectionFileError: other users could replace files in the directory.
    """
    unusable = {}
    for path in _connection_files():
        try:
            read(path)
        except ConnectionFileError as error:
            with contextlib.suppress(ConnectionFileError, OSError):
                if is_of_exited_run(path):
                    continue
            unusable[path] = str(error)
    return unusable


def remove_exited_runs() -> list[Connection]:
    """Remove the connection files and sockets that killed runs of this machine have left.

    Returns:
        The other runs, which may be alive.
    """
    runs = []
    for path, run in _readable_files():
        if run.has_exited():
            _remove(path, run)
        else:
            runs.append(run)
    return runs


def remove_if_exited(path: Path) -> None:
    """Remove a connection file and its sockets if its run has exited on this machine."""
    with contextlib.suppress(ConnectionFileError):  # there is none, or it is not usable
        run = read(path)
        if run.has_exited():
            _remove(path, run)


def _remove(path: Path, run: Connection) -> None:
    """Remove a connection file and its sockets, unless somebody listens there.

    The file may name the sockets of another run, or a process that the run has started holds them.
    """
    endpoints = run.local_endpoints or ()
    if any(local_sockets.has_listener(endpoint) for endpoint in endpoints):
        return
    path.unlink(missing_ok=True)
    for endpoint in endpoints:
        local_sockets.remove_socket_directory(endpoint)


def _connection_files() -> list[Path]:
    directory = runtime_dir()
    if not directory.is_dir():
        return []
    private_files.check_not_writable_by_others(directory)
    return sorted(directory.glob("run-*.json"))


def _readable_files() -> list[tuple[Path, Connection]]:
    found = []
    for path in _connection_files():
        try:
            found.append((path, read(path)))
        except ConnectionFileError:
            continue  # of another version, or malformed: see `find_unusable_connection_files`
    return found


def is_reachable(run: Connection) -> bool:
    """Return whether a run accepts connections. A result is kept for up to 15 seconds.

    After a flood, a run closes one of its two sockets for a while: the other one suffices.
    """
    period = int(time.monotonic() / ASK_AGAIN_SECONDS)
    telemetry, requests = run.addresses()
    if _accepts_connections(requests, period):
        return True
    return run.is_local() and _accepts_connections(telemetry, period)


@functools.lru_cache(maxsize=256)
def _accepts_connections(address: str, _period: int) -> bool:
    if not address.startswith("tcp://"):
        return local_sockets.has_listener(address)
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REPLY_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True
