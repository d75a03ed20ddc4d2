"""Where a run listens: its two sockets, and the connection file by which viewers find them."""

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

LAST_WORDS_SECONDS = 0.2  # how long closing waits for "finished" to reach the viewers


@dataclass(frozen=True)
class Endpoints:
    """Where to listen. Port 0 takes a free one; ``file`` None: a new one per run."""

    host: str = "127.0.0.1"
    telemetry_port: int = 0
    request_port: int = 0
    file: Path | None = None


class RunServer:
    """Open from its making to `close`.

    Attributes:
        publisher: telemetry, to everybody.
        server: requests, and the replies to them.
        connection: what a viewer needs to know.
        file: where that is written.

    Raises:
        OSError: a port is taken.
        ConnectionFileError: the connection file cannot be written.
    """

    def __init__(self, run: str, model: str, endpoints: Endpoints) -> None:
        keys = Keys.generate()
        self.publisher = Publisher(f"tcp://{endpoints.host}:{endpoints.telemetry_port}", keys)
        try:
            self.server = RequestServer(f"tcp://{endpoints.host}:{endpoints.request_port}", keys)
        except OSError:
            self.publisher.close()
            raise
        self.connection = Connection(
            run=run,
            telemetry_endpoint=self.publisher.endpoint,
            request_endpoint=self.server.endpoint,
            server_key=keys.public,
            model=model,
            pid=os.getpid(),
            hostname=socket.gethostname(),
        )
        try:
            self.file = connections.write(self.connection, endpoints.file)
        except ConnectionFileError:
            self.publisher.close()
            self.server.close()
            raise

    def close(self) -> None:
        """Free the ports and remove the file; what was sent last still gets a moment to leave."""
        connections.remove(self.file)
        self.server.close(LAST_WORDS_SECONDS)
        self.publisher.close(LAST_WORDS_SECONDS)
