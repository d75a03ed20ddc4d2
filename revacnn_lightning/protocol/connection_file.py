"""The connection file: the address of a run, and the key that is required to talk to it.

A run writes this file when it starts and removes it when it ends. Only its owner can read it.
Whoever has the file can monitor and steer the run: it contains the run's CURVE public key, which
is never sent over the wire and without which libzmq rejects the handshake, and the key pair of the
run's owner. ``revacnn share`` writes files with other keys, for other people.
"""

from __future__ import annotations

import os
import re
import socket
import time
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from revacnn_lightning import __version__
from revacnn_lightning.errors import ConnectionFileError
from revacnn_lightning.protocol import local_sockets, private_files
from revacnn_lightning.protocol.access_keys import OWNER, Role
from revacnn_lightning.protocol.base_socket import Keys
from revacnn_lightning.protocol.messages import PROTOCOL_VERSION
from revacnn_lightning.protocol.processes import (
    boot_id_of,
    has_process_exited,
    is_process_suspended,
    machine_id,
    process_start,
)

__all__ = ["Connection", "is_of_exited_run", "read", "remove", "runtime_dir", "write"]

VALID_RELEASE = re.compile(r"[0-9A-Za-z.+!-]{1,40}")
WILDCARDS = ("0.0.0.0", "[::]", "*")


class Connection(Struct, frozen=True):
    """Everything a viewer needs to attach to a run."""

    run: str  # id
    telemetry_endpoint: str  # of the XPUB socket, "ipc:///tmp/…/telemetry" or "tcp://host:port"
    request_endpoint: str  # of the ROUTER socket
    server_key: str  # CURVE public key of the run, Z85
    model: str = ""  # class name
    pid: int = 0
    hostname: str = ""
    start_time: float = field(default_factory=time.time)  # Unix time, seconds
    protocol: int = PROTOCOL_VERSION
    machine: str = ""  # id of the machine since it was booted
    process_start: int = 0  # when the process was started, in the kernel's unit
    local_endpoints: tuple[str, str] | None = None  # for viewers on the machine of the run
    # Where `ssh_command` makes Unix sockets available on another machine; free to be changed.
    forwarded_ports: tuple[int, int] | None = None
    name: str = ""  # as the user calls the run
    # The key pair of whoever uses this file, in Z85.
    public_key: str = ""
    secret_key: str = ""
    key_name: str = OWNER
    role: Role = "owner"  # what the key may do; the run itself decides
    key_expires: float | None = None  # Unix time; null: when the run ends
    lineage: str = ""  # shared by the runs that continue each other, from a checkpoint
    first_step: int = 0  # batches that were trained before this run, by those that it continues
    release: str = ""  # of revacnn-lightning, at the run

    def __repr__(self) -> str:
        return f"<Connection to run {self.run} as {self.key_name}>"  # without the secret

    @property
    def keys(self) -> Keys | None:
        """The key pair of the client that uses this file; None if the run admits any key."""
        return Keys(self.public_key, self.secret_key) if self.secret_key else None

    @classmethod
    def of_this_process(cls, **fields: Any) -> Connection:
        """Return the connection of a run in this process.

        The fields about the process and its machine are filled in; ``fields`` are all others.
        """
        pid = os.getpid()
        return cls(
            pid=pid,
            hostname=socket.gethostname(),
            machine=machine_id(),
            process_start=process_start(pid),
            **fields,
        )

    def is_local(self) -> bool:
        """Return whether the run is on this machine, so that `has_exited` is certain."""
        if self.machine and machine_id():
            return self.machine == machine_id()
        return self.hostname == socket.gethostname()

    @property
    def title(self) -> str:
        """The name of the run; without one, its model and the time of its start."""
        started = time.strftime("%H:%M", time.localtime(self.start_time))
        return self.name or f"{self.model or self.run} · {started}"

    def has_exited(self) -> bool:
        """Return True if the run was on this machine and its process no longer exists.

        The process of a run on another machine cannot be checked: the result is False.
        """
        if self.is_local():
            return self.pid > 0 and has_process_exited(self.pid, self.process_start)
        # Before a reboot, this machine had another id.
        is_older = bool(self.machine) and boot_id_of(self.machine) != boot_id_of(machine_id())
        return is_older and self.hostname == socket.gethostname() and self._precedes_boot()

    def is_suspended(self) -> bool:
        """Return True if the process of the run is on this machine and is stopped, as by Ctrl-Z."""
        return (
            self.is_local() and self.pid > 0 and is_process_suspended(self.pid, self.process_start)
        )

    def _precedes_boot(self) -> bool:
        uptime = time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else 0.0
        return self.start_time < time.time() - uptime

    def addresses(self) -> tuple[str, str]:
        """Return the addresses of telemetry and of requests, as this machine reaches them.

        The Unix sockets of a run on another machine are reached through `ssh_command`.
        """
        if self.local_endpoints is not None and local_sockets.do_sockets_exist(
            self.local_endpoints
        ):
            return self.local_endpoints
        is_public = self.telemetry_endpoint.startswith("tcp://")
        if is_public or self.forwarded_ports is None or self.is_local():
            return self.telemetry_endpoint, self.request_endpoint
        telemetry_port, request_port = self.forwarded_ports
        return f"tcp://127.0.0.1:{telemetry_port}", f"tcp://127.0.0.1:{request_port}"

    def ssh_command(self) -> str:
        """Return the command that forwards the sockets of this run to another machine."""
        forwards = []
        endpoints = (self.telemetry_endpoint, self.request_endpoint)
        for endpoint, port in zip(endpoints, self.forwarded_ports or (0, 0), strict=True):
            if endpoint.startswith("ipc://"):
                forwards.append(f"-L {port}:{endpoint.removeprefix('ipc://')}")
            else:
                host, port_there = endpoint.removeprefix("tcp://").rsplit(":", 1)
                host = "127.0.0.1" if host in (*WILDCARDS, self.hostname) else host
                forwards.append(f"-L {port_there}:{host}:{port_there}")
        return f"ssh -N {' '.join(forwards)} {self.hostname}"


def runtime_dir() -> Path:
    """Return the directory in which runs write their connection files.

    It is $REVACNN_RUNTIME_DIR if that is set. Otherwise it is in $XDG_RUNTIME_DIR, or in the home
    directory.
    """
    if explicit := os.environ.get("REVACNN_RUNTIME_DIR"):
        return Path(explicit)
    session = os.environ.get("XDG_RUNTIME_DIR")
    if session and private_files.is_own(Path(session)):  # not with sudo, which keeps the variable
        return Path(session) / "revacnn"
    return Path.home() / ".local" / "share" / "revacnn" / "runtime"


def write(connection: Connection, path: Path | None = None) -> Path:
    """Write a connection file that only its owner can read; return its path.

    Raises:
        ConnectionFileError: the file cannot be written, or other users could replace it.
    """
    content = msgspec.json.format(msgspec.json.encode(connection), indent=2)
    try:
        if path is None:
            directory = runtime_dir()
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            private_files.check_not_writable_by_others(directory)
            path = directory / f"run-{connection.run}.json"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        private_files.write(path, content)
    except OSError as error:
        raise ConnectionFileError(
            f"cannot write the connection file {path or runtime_dir()}: {error}; choose another "
            "place with ReVACNN(connection_file=...)"
        ) from error
    return path


def read(path: str | Path) -> Connection:
    """Read a connection file.

    Raises:
        ConnectionFileError: the file is missing, not private, malformed, or of another protocol
            version.
    """
    path = Path(path).expanduser()
    try:
        content = private_files.read(path)
        _check_version(content, path)
        return msgspec.json.decode(content, type=Connection)
    except FileNotFoundError as error:
        raise ConnectionFileError(
            f"there is no connection file {path}; the run writes one when it starts"
        ) from error
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConnectionFileError(
            f"{path} is not a usable connection file: {error}; copy it again from the machine of "
            "the run"
        ) from error


class _Envelope(Struct):
    """What all protocol versions write in the same way, about a run and its process."""

    protocol: int
    release: str = ""
    pid: int = 0
    hostname: str = ""
    machine: str = ""
    process_start: int = 0
    start_time: float = 0.0


def is_of_exited_run(path: Path) -> bool:
    """Return whether the run of a connection file has exited. Any protocol version will do.

    Raises:
        ConnectionFileError: the file is not usable.
        OSError: the file cannot be read.
    """
    try:
        envelope = msgspec.json.decode(private_files.read(path), type=_Envelope)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConnectionFileError(f"{path} is not a connection file: {error}") from error
    fields = ("pid", "hostname", "machine", "process_start", "start_time")
    process = {name: getattr(envelope, name) for name in fields}
    return Connection("", "", "", "", **process).has_exited()


def _check_version(content: bytes, path: Path) -> None:
    """Check the protocol first: a file of another version may have other fields."""
    envelope = msgspec.json.decode(content, type=_Envelope)
    theirs, release = envelope.protocol, envelope.release
    if theirs == PROTOCOL_VERSION:
        return
    named = (
        f"revacnn-lightning {release}" if VALID_RELEASE.fullmatch(release) else "another release"
    )
    if theirs > PROTOCOL_VERSION:
        age, where = "newer", "install that release here"
    else:
        age, where = "older", "install that release here, or start the training with this one"
    raise ConnectionFileError(
        f"the run of {path} uses protocol {theirs}, this side uses {PROTOCOL_VERSION}: the "
        f"training has {named}, which is {age} than {__version__} here; {where}"
    )


def remove(path: Path, run: str = "") -> None:
    """Remove a connection file, unless it is gone already or belongs to another run.

    Args:
        path: the file.
        run: id of the run that it must belong to. "" removes the file of any run.
    """
    try:
        is_of_other_run = run not in ("", read(path).run)
    except ConnectionFileError:
        is_of_other_run = False
    if not is_of_other_run:
        path.unlink(missing_ok=True)
