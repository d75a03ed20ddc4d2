"""The connection file: the address of a run, and the key that is required to talk to it.

A run writes this file when it starts and removes it when it ends. Only its owner can read it.
Whoever has the file can monitor and steer the run: it contains the run's CURVE public key, which
is never sent over the wire and without which libzmq rejects the handshake.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from pathlib import Path

import msgspec
from msgspec import Struct, field

from revacnn_lightning.errors import ConnectionFileError
from revacnn_lightning.protocol.messages import PROTOCOL_VERSION

__all__ = ["Connection", "find_newest", "list_runs", "read", "remove", "runtime_dir", "write"]


class Connection(Struct, frozen=True):
    """Everything a viewer needs to attach to a run."""

    run: str  # id
    telemetry_endpoint: str  # of the XPUB socket, "tcp://127.0.0.1:40001"
    request_endpoint: str  # of the ROUTER socket
    server_key: str  # CURVE public key of the run, Z85
    model: str = ""  # class name
    pid: int = 0
    hostname: str = ""
    start_time: float = field(default_factory=time.time)  # Unix time, seconds
    protocol: int = PROTOCOL_VERSION
    name: str = ""  # as the user calls the run

    @property
    def title(self) -> str:
        """The name of the run; without one, its model and the time of its start."""
        started = time.strftime("%H:%M", time.localtime(self.start_time))
        return self.name or f"{self.model or self.run} · {started}"

    def has_exited(self) -> bool:
        """Return True if the run was on this machine and its process no longer exists.

        The process of a run on another machine cannot be checked: the result is False.
        """
        if self.hostname != socket.gethostname() or self.pid <= 0:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return _is_zombie(self.pid)

    def ssh_command(self) -> str:
        """Return the command that forwards the ports of this run to another machine."""
        endpoints = (self.telemetry_endpoint, self.request_endpoint)
        ports = [endpoint.rsplit(":", 1)[1] for endpoint in endpoints]
        forwards = " ".join(f"-L {port}:127.0.0.1:{port}" for port in ports)
        return f"ssh -N {forwards} {self.hostname}"


def _is_zombie(pid: int) -> bool:
    """Return whether a process has exited and only its parent has not noticed (Linux)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False  # there is no /proc here, or the process is of another user
    return status.rpartition(")")[2].split()[0] == "Z"


def runtime_dir() -> Path:
    """Return the directory of connection files.

    It is $REVACNN_RUNTIME_DIR, else it is in $XDG_RUNTIME_DIR, else in the home directory.
    """
    if explicit := os.environ.get("REVACNN_RUNTIME_DIR"):
        return Path(explicit)
    if session := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(session) / "revacnn"
    return Path.home() / ".local" / "share" / "revacnn" / "runtime"


def write(connection: Connection, path: Path | None = None) -> Path:
    """Write a connection file that only its owner can read; return its path.

    Raises:
        ConnectionFileError: the file cannot be written.
    """
    path = path or runtime_dir() / f"run-{connection.run}.json"
    content = msgspec.json.format(msgspec.json.encode(connection), indent=2)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Created with its final mode, so that other users cannot open it at any moment.
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(content)
        os.replace(partial, path)
    except OSError as error:
        raise ConnectionFileError(
            f"cannot write the connection file {path}: {error}; choose another place with "
            "ReVACNN(connection_file=...)"
        ) from error
    return path


def read(path: str | Path) -> Connection:
    """Read a connection file.

    Raises:
        ConnectionFileError: the file is missing, readable by other users, malformed, or of another
            protocol version.
    """
    path = Path(path).expanduser()
    try:
        mode = path.stat().st_mode
        content = path.read_bytes()
        _check_version(content, path)
        connection = msgspec.json.decode(content, type=Connection)
    except FileNotFoundError as error:
        raise ConnectionFileError(
            f"there is no connection file {path}; the run writes one when it starts"
        ) from error
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConnectionFileError(
            f"{path} is not a usable connection file: {error}; copy it again from the machine of "
            "the run"
        ) from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConnectionFileError(
            f"{path} is readable by other users, who could then steer the run; "
            f"run: chmod 600 {path}"
        )
    return connection


def _check_version(content: bytes, path: Path) -> None:
    """Check the protocol first: a file of another version may have other fields."""

    class Envelope(Struct):
        protocol: int

    protocol = msgspec.json.decode(content, type=Envelope).protocol
    if protocol != PROTOCOL_VERSION:
        raise ConnectionFileError(
            f"the run of {path} uses protocol {protocol}, this side uses {PROTOCOL_VERSION}; "
            "install the same version of revacnn-lightning on both sides"
        )


def remove(path: Path) -> None:
    """Remove a connection file, if it still exists."""
    path.unlink(missing_ok=True)


def list_runs() -> list[Connection]:
    """Return the live runs whose files are in the runtime directory, newest first."""
    runs = []
    for path in runtime_dir().glob("run-*.json"):
        try:
            connection = read(path)
        except ConnectionFileError:
            continue  # of another user or another version, or not yet complete
        if not connection.has_exited():
            runs.append(connection)
    return sorted(runs, key=lambda connection: connection.start_time, reverse=True)


def find_newest() -> Connection:
    """Return the newest run on this machine.

    Raises:
        ConnectionFileError: no run is live on this machine.
    """
    runs = list_runs()
    if not runs:
        raise ConnectionFileError(
            f"no training is running (no live connection file in {runtime_dir()}); start one with "
            "Trainer(callbacks=[ReVACNN()]), or pass the connection file of a run elsewhere"
        )
    return runs[0]
