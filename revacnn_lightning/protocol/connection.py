"""The connection file: where a run listens, and the key without which nobody can talk to it.

A training writes the file when it starts and removes it when it ends. Only its owner can read
it. Who holds it may watch and steer the run: it contains the run's CURVE public key, which is
never sent over the wire, and without which libzmq's handshake fails.
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
    """What a viewer needs in order to attach to a run."""

    run: str
    telemetry: str  # endpoint of the PUB socket, "tcp://127.0.0.1:40001"
    requests: str  # endpoint of the ROUTER socket
    server_key: str  # CURVE public key of the training, Z85
    model: str = ""
    pid: int = 0
    hostname: str = ""
    started: float = field(default_factory=time.time)  # Unix time, seconds
    protocol: int = PROTOCOL_VERSION

    def process_is_gone(self) -> bool:
        """True if the training ran on this machine and its process no longer exists."""
        if self.hostname != socket.gethostname() or self.pid <= 0:
            return False  # another machine: only its silence can tell
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False

    def ssh_command(self) -> str:
        """The command that makes this run reachable from another machine."""
        ports = [endpoint.rsplit(":", 1)[1] for endpoint in (self.telemetry, self.requests)]
        forwards = " ".join(f"-L {port}:127.0.0.1:{port}" for port in ports)
        return f"ssh -N {forwards} {self.hostname}"


def runtime_dir() -> Path:
    """Where connection files lie: $REVACNN_RUNTIME_DIR, else the user's runtime directory."""
    if explicit := os.environ.get("REVACNN_RUNTIME_DIR"):
        return Path(explicit)
    if session := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(session) / "revacnn"
    return Path.home() / ".local" / "share" / "revacnn" / "runtime"


def write(connection: Connection, path: Path | None = None) -> Path:
    """Write the file so that only its owner can read it; returns its path.

    Raises:
        ConnectionFileError: the file cannot be written.
    """
    path = path or runtime_dir() / f"run-{connection.run}.json"
    content = msgspec.json.format(msgspec.json.encode(connection), indent=2)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Created with its final mode: there is no moment at which others could open it.
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(content)
        os.replace(partial, path)
    except OSError as error:
        raise ConnectionFileError(f"cannot write the connection file {path}: {error}") from error
    return path


def read(path: str | Path) -> Connection:
    """Read a connection file.

    Raises:
        ConnectionFileError: it is missing, open to other users, not a connection file, or of
            another protocol version.
    """
    path = Path(path).expanduser()
    try:
        mode = path.stat().st_mode
        connection = msgspec.json.decode(path.read_bytes(), type=Connection)
    except FileNotFoundError as error:
        raise ConnectionFileError(
            f"there is no connection file {path}; the training writes one when it starts"
        ) from error
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConnectionFileError(f"{path} is not a usable connection file: {error}") from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConnectionFileError(
            f"{path} can be read by other users, who could then steer the training; "
            f"run: chmod 600 {path}"
        )
    if connection.protocol != PROTOCOL_VERSION:
        raise ConnectionFileError(
            f"{path} is of a training that speaks protocol {connection.protocol}, this side speaks "
            f"{PROTOCOL_VERSION}; install the same revacnn-lightning on both sides"
        )
    return connection


def remove(path: Path) -> None:
    """Remove a connection file; it may be gone already."""
    path.unlink(missing_ok=True)


def list_runs() -> list[Connection]:
    """The runs whose files lie in the runtime directory, newest first, without those that died."""
    runs = []
    for path in runtime_dir().glob("run-*.json"):
        try:
            connection = read(path)
        except ConnectionFileError:
            continue  # another user's, another version's, or just being written
        if not connection.process_is_gone():
            runs.append(connection)
    return sorted(runs, key=lambda connection: connection.started, reverse=True)


def find_newest() -> Connection:
    """The newest run on this machine.

    Raises:
        ConnectionFileError: there is none.
    """
    runs = list_runs()
    if not runs:
        raise ConnectionFileError(
            f"no training is running (no live connection file in {runtime_dir()}); start one with "
            "Trainer(callbacks=[ReVACNN()]), or name the file of a run on another machine"
        )
    return runs[0]
