"""The two sockets of a run, and the connection file by which viewers find them."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from revacnn_lightning import __version__
from revacnn_lightning.protocol import connection_file
from revacnn_lightning.protocol.access_keys import KeyRing
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.forwarder import LOCAL, TCP, RateLimitingForwarder, TransportLimits
from revacnn_lightning.protocol.lineage import Lineage
from revacnn_lightning.protocol.local_sockets import HAS_UNIX_SOCKETS, SocketDirectory
from revacnn_lightning.protocol.locked_publisher import LockedPublisher
from revacnn_lightning.protocol.run_discovery import remove_exited_runs, remove_if_exited
from revacnn_lightning.protocol.sockets import Keys, RequestServer

__all__ = ["Endpoints", "RunServer"]

LINGER_SECONDS = 0.2  # time that closing grants the last messages to leave
LOOPBACK = "127.0.0.1"
FIRST_FORWARDED_PORT, FORWARDED_PORTS = 40_000, 20_000


@dataclass(frozen=True)
class Endpoints:
    """Where to listen, and the name under which viewers find the run.

    Without a ``host``, a run listens on Unix sockets that only this user can open or, given a port,
    on the loopback address. Port 0 picks a free port. Without a ``connection_file``, each run has a
    file of its own.
    """

    host: str | None = None
    telemetry_port: int = 0
    request_port: int = 0
    connection_file: Path | None = None
    name: str = ""

    @property
    def ports(self) -> tuple[int, int]:
        return self.telemetry_port, self.request_port

    @property
    def tcp_host(self) -> str | None:
        """The address to listen on with TCP; None if Unix sockets suffice."""
        needs_tcp = any(self.ports) or not HAS_UNIX_SOCKETS
        return LOOPBACK if self.host is None and needs_tcp else self.host


class RunServer:
    """The sockets and the connection file of a run, open until `close`.

    Attributes:
        publisher: sends telemetry to all viewers.
        request_server: receives requests and sends the replies.
        keys: the access keys whose owners may connect.
        connection: what a viewer needs to attach.
        connection_file: path of the file that holds it.

    Raises:
        OSError: a port is in use.
        ConnectionFileError: the connection file cannot be written.
    """

    def __init__(
        self, run: str, model: str, endpoints: Endpoints, lineage: Lineage | None = None
    ) -> None:
        lineage = lineage or Lineage.begin()
        keys, owner = Keys.generate(), Keys.generate()
        self.keys = KeyRing(owner.public)
        self._titles: dict[int, str] = {}
        with ExitStack() as stack:
            directory = _open_directory(stack)
            # Closed after the sockets, whose last messages they send.
            self._forwarders = stack.enter_context(ExitStack())
            own = directory.run_endpoints if directory else _tcp_addresses(endpoints)
            self.publisher = LockedPublisher(own[0], keys, self.keys)
            stack.callback(self.publisher.close, LINGER_SECONDS)
            self.request_server = RequestServer(own[1], keys, self.keys)
            stack.callback(self.request_server.close, LINGER_SECONDS)
            self.publisher.titles = self.request_server.titles = self._titles
            local = public = (self.publisher.endpoint, self.request_server.endpoint)
            if directory:
                local = public = directory.endpoints
                self._forward(LOCAL, local[1:], own[1:])
                if endpoints.tcp_host is not None:
                    telemetry, requests = self._forward(TCP, _tcp_addresses(endpoints), own)
                    public = (telemetry, requests)
            self.connection = Connection.of_this_process(
                run=run,
                telemetry_endpoint=public[0],
                request_endpoint=public[1],
                server_key=keys.public,
                public_key=owner.public,
                secret_key=owner.secret,
                model=model,
                name=endpoints.name,
                local_endpoints=local,
                forwarded_ports=_pick_forwarded_ports(),
                lineage=lineage.id,
                first_step=lineage.first_step,
                release=__version__,
            )
            if endpoints.connection_file is None:
                remove_exited_runs()
            else:
                remove_if_exited(endpoints.connection_file)
            self.connection_file = connection_file.write(self.connection, endpoints.connection_file)
            stack.callback(connection_file.remove, self.connection_file, run)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Remove the connection file and free the ports, after a moment for the last messages."""
        self._stack.close()

    def _forward(
        self, limits: TransportLimits, addresses: tuple[str, ...], targets: tuple[str, ...]
    ) -> tuple[str, ...]:
        """Listen for viewers at addresses, and return the endpoints."""
        forwarder = RateLimitingForwarder(addresses, targets, limits, self._titles)
        self._forwarders.callback(forwarder.close)
        return forwarder.endpoints


def _open_directory(stack: ExitStack) -> SocketDirectory | None:
    if not HAS_UNIX_SOCKETS:
        return None
    directory = SocketDirectory()
    stack.callback(directory.remove)
    return directory


def _tcp_addresses(endpoints: Endpoints) -> tuple[str, str]:
    address = f"tcp://{endpoints.tcp_host}"
    return f"{address}:{endpoints.telemetry_port}", f"{address}:{endpoints.request_port}"


def _pick_forwarded_ports() -> tuple[int, int]:
    first = FIRST_FORWARDED_PORT + 2 * secrets.randbelow(FORWARDED_PORTS // 2)
    return first, first + 1
