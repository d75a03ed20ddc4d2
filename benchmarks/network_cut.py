"""A TCP proxy that can be cut: nothing passes in either direction until it is restored.

What is underway is kept and arrives later, as TCP sends it again. A connection that is made in the
meantime is accepted by nobody, as at the end of an ssh tunnel whose network is down.
"""

from __future__ import annotations

import contextlib
import socket
import threading

from msgspec.structs import replace

from revacnn_lightning.protocol.connection_file import Connection

__all__ = ["CuttableNetwork"]

CHUNK_BYTES = 2**16


class CuttableNetwork:
    """Forwards the two TCP ports of a run, until it is cut.

    Attributes:
        connection: that of the run, through this network.
    """

    def __init__(self, run: Connection) -> None:
        self._is_whole = threading.Event()
        self._is_whole.set()
        self._is_closed = False
        self._sockets: list[socket.socket] = []
        telemetry, requests = map(self._forward, (run.telemetry_endpoint, run.request_endpoint))
        self.connection = replace(
            run,
            telemetry_endpoint=telemetry,
            request_endpoint=requests,
            local_endpoints=None,
            hostname="elsewhere",  # a process of another machine cannot be seen to exit
            machine="elsewhere",
        )

    def cut(self) -> None:
        """Let nothing pass."""
        self._is_whole.clear()

    def restore(self) -> None:
        """Let everything pass, first what has been kept."""
        self._is_whole.set()

    def close(self) -> None:
        """End all connections."""
        self._is_closed = True
        self._is_whole.set()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def __enter__(self) -> CuttableNetwork:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _forward(self, endpoint: str) -> str:
        """Forward a port of this machine to an endpoint; return the endpoint of the port."""
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        listener = socket.create_server(("127.0.0.1", 0))
        self._sockets.append(listener)
        self._run(self._accept, listener, (host, int(port)))
        return f"tcp://127.0.0.1:{listener.getsockname()[1]}"

    def _run(self, target: object, *arguments: object) -> None:
        threading.Thread(target=target, args=arguments, daemon=True).start()  # type: ignore[arg-type]

    def _accept(self, listener: socket.socket, target: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):  # closed
            while not self._is_closed:
                near, _ = listener.accept()
                self._is_whole.wait()
                far = socket.create_connection(target)
                self._sockets += [near, far]
                self._run(self._copy, near, far)
                self._run(self._copy, far, near)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                self._is_whole.wait()
                target.sendall(data)
        self._is_whole.wait()
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
