"""The two sockets of a run, and the connection file by which viewers find them."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from revacnn_lightning.errors import ConnectionFileError
from revacnn_lightning.protocol import connection as connections
from revacnn_lightning.protocol.connection import Connection
from revacnn_lightning.protocol.sockets import Keys, Publisher, RequestServer

__all__ = ["Endpoints", "RunServer"]

LINGER_SECONDS = 0.2  # time that closing grants the last messages to leave


@dataclass(frozen=True)
class Endpoints:
    """Where to listen, and the name under which viewers find the run.

    Port 0 picks a free port; ``connection_file`` None: one file per run.
    """

    host: str = "127.0.0.1"
    telemetry_port: int = 0
    request_port: int = 0
    connection_file: Path | None = None
    name: str = ""


class RunServer:
    """The sockets and the connection file of a run, open until `close`.

    Attributes:
        publisher: sends telemetry to all viewers.
        request_server: receives requests and sends the replies.
        connection: what a viewer needs to attach.
        connection_file: path of the file that holds it.

    Raises:
        OSError: a port is in use.
        ConnectionFileError: the connection file cannot be written.
    """

    def __init__(self, run: str, model: str, endpoints: Endpoints) -> None:
        host, keys = endpoints.host, Keys.generate()
        self.publisher = Publisher(f"tcp://{host}:{endpoints.telemetry_port}", keys)
        try:
            self.request_server = RequestServer(f"tcp://{host}:{endpoints.request_port}", keys)
        except OSError:
            self.publisher.close()
            raise
        self.connection = Connection(
            run=run,
            telemetry_endpoint=self.publisher.endpoint,
            request_endpoint=self.request_server.endpoint,
            server_key=keys.public,
            model=model,
            pid=os.getpid(),
            hostname=socket.gethostname(),
            name=endpoints.name,
        )
        try:
            self.connection_file = connections.write(self.connection, endpoints.connection_file)
        except ConnectionFileError:
            self.publisher.close()
            self.request_server.close()
            raise

    def close(self) -> None:
        """Remove the connection file and free the ports, after a moment for the last messages."""
        connections.remove(self.connection_file)
        self.request_server.close(LINGER_SECONDS)
        self.publisher.close(LINGER_SECONDS)
