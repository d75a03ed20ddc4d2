"""The process that holds the sockets that viewers of a run connect to; `forwarder` starts it.

It needs nothing but the standard library. A connection reaches the training only after the first
message of CURVE's handshake, so silent connections and other protocols cost the training nothing.
Few connections reach it at a time. Those that have not proved to have the key give way to newer
ones, so that a flood keeps no viewer out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from typing import Any

# The beginning of a ZMTP 3 connection (rfc.zeromq.org/spec/23) with CURVE (spec/26).
GREETING_BYTES = 64
SIGNATURE = (b"\xff", b"\x7f")  # at the beginning, and at its tenth byte
MECHANISM = b"CURVE".ljust(20, b"\0")
HELLO = b"\x04\xc8\x05HELLO\x01\x00"
HELLO_BYTES = 202
WELCOME_BYTES = 170  # what the run sends next; it sends more only to a client with the key

MAX_SILENT = 128  # connections before their first message; they cost the training nothing
MAX_CONNECTIONS = 16  # to the training, of each port
HANDSHAKE_SECONDS = 5.0
CHUNK_BYTES = 65_536
PARENT_SECONDS = 1.0  # between two checks whether the training still exists
DRAIN_SECONDS = 1.0
# A viewer whose machine is switched off or leaves the network closes nothing. Its connection ends
# after a minute without a sign of life, so that it does not keep the place of another viewer.
KEEPALIVE = {
    "TCP_KEEPIDLE": 30,  # s
    "TCP_KEEPINTVL": 10,  # s
    "TCP_KEEPCNT": 3,  # probes
    "TCP_USER_TIMEOUT": 60_000,  # ms, for data on its way
}


class HostileClientError(Exception):
    """A connection does not begin as one of a viewer does."""


class Throttle:
    """Delays what exceeds a number of bytes per second on average, and of bytes at a time."""

    def __init__(self, bytes_per_second: float, burst_bytes: float) -> None:
        self.bytes_per_second, self.burst_bytes = bytes_per_second, burst_bytes
        self._bytes, self._time = burst_bytes, time.monotonic()

    async def wait(self, byte_count: int) -> None:
        """Wait until so many more bytes are allowed."""
        now = time.monotonic()
        refilled = self._bytes + (now - self._time) * self.bytes_per_second
        self._bytes = min(self.burst_bytes, refilled)
        self._bytes -= byte_count
        self._time = now
        if self._bytes < 0:
            await asyncio.sleep(-self._bytes / self.bytes_per_second)


class ConnectionForwarder:
    """Forwards the connections of viewers to one socket of the run, and limits what they send.

    Args:
        run_socket_path: the path of the Unix socket of the training.
        bytes_per_second: how many bytes per second a client may send.
        burst_bytes: how many bytes a client may send at a time.
    """

    def __init__(self, run_socket_path: str, bytes_per_second: float, burst_bytes: float) -> None:
        self.run_socket_path = run_socket_path
        self.bytes_per_second, self.burst_bytes = bytes_per_second, burst_bytes
        self._greeting = b""
        self._greeting_lock = asyncio.Lock()
        # Connections by what they have shown so far, oldest first.
        self.silent: dict[asyncio.Task[None], None] = {}
        self.unproven: dict[asyncio.Task[None], None] = {}
        self.proven: dict[asyncio.Task[None], None] = {}
        # Connections that the run still holds count, too.
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)
        self._ending: set[asyncio.Task[None]] = set()

    async def _read_run_greeting(self) -> bytes:
        """Return the greeting that begins each connection of the run, to send it in its place."""
        async with self._greeting_lock:
            if not self._greeting:
                reader, writer = await asyncio.open_unix_connection(self.run_socket_path)
                try:
                    writer.write(b"\xff" + bytes(7) + b"\x01\x7f\x03\x01" + MECHANISM + bytes(32))
                    self._greeting = await reader.readexactly(GREETING_BYTES)
                finally:
                    writer.close()
        return self._greeting

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until either side closes it."""
        task = asyncio.current_task()
        assert task is not None
        enable_keepalive(writer.get_extra_info("socket"))
        try:
            with contextlib.suppress(
                OSError, EOFError, asyncio.TimeoutError, asyncio.CancelledError, HostileClientError
            ):
                await self._forward(task, reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(writer.wait_closed(), DRAIN_SECONDS)
            for group in (self.silent, self.unproven, self.proven):
                group.pop(task, None)

    async def _forward(
        self,
        task: asyncio.Task[None],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._admit_silent(task)
        beginning = await asyncio.wait_for(self._greet(reader, writer), HANDSHAKE_SECONDS)
        self._admit_unproven(task)
        run_reader, run_writer = await self._connect_to_run()
        try:
            run_writer.write(beginning)
            await asyncio.wait_for(run_reader.readexactly(GREETING_BYTES), HANDSHAKE_SECONDS)
            to_run = asyncio.ensure_future(self._copy_to_run(reader, run_writer))
            to_client = asyncio.ensure_future(self._copy_to_client(task, run_reader, writer))
            try:
                await asyncio.wait({to_run, to_client}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for copying in (to_run, to_client):
                    copying.cancel()
                await asyncio.gather(to_run, to_client, return_exceptions=True)
        finally:
            ending = asyncio.ensure_future(self._end(run_reader, run_writer))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def _connect_to_run(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        await asyncio.wait_for(self._places.acquire(), HANDSHAKE_SECONDS)
        try:
            return await asyncio.open_unix_connection(self.run_socket_path, limit=CHUNK_BYTES)
        except BaseException:  # also if this task is cancelled
            self._places.release()
            raise

    async def _end(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Close a connection to the run. Its place is free once the run has closed it, too."""
        with contextlib.suppress(OSError, asyncio.CancelledError):
            writer.write_eof()
            while await reader.read(CHUNK_BYTES):
                pass
        writer.close()
        self._places.release()

    def _admit_silent(self, task: asyncio.Task[None]) -> None:
        if len(self.silent) >= MAX_SILENT:
            next(iter(self.silent)).cancel()
        self.silent[task] = None

    def _admit_unproven(self, task: asyncio.Task[None]) -> None:
        if len(self.unproven) + len(self.proven) >= MAX_CONNECTIONS:
            oldest = next(iter(self.unproven), None)
            if oldest is None:
                raise HostileClientError("too many connections")
            oldest.cancel()
            self.unproven.pop(oldest)
        self.silent.pop(task, None)
        self.unproven[task] = None

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Return the client's greeting and first message, if they are those of a viewer."""
        writer.write(await self._read_run_greeting())
        greeting = await reader.readexactly(GREETING_BYTES)
        is_zmtp = (greeting[:1], greeting[9:10]) == SIGNATURE and greeting[10] >= 3
        if not is_zmtp or greeting[12:32] != MECHANISM:
            raise HostileClientError("another protocol")
        hello = await reader.readexactly(HELLO_BYTES)
        if not hello.startswith(HELLO):
            raise HostileClientError("no HELLO")
        return greeting + hello

    async def _copy_to_run(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        throttle = Throttle(self.bytes_per_second, self.burst_bytes)
        while data := await reader.read(CHUNK_BYTES):
            await throttle.wait(len(data))
            writer.write(data)
            await writer.drain()

    async def _copy_to_client(
        self,
        task: asyncio.Task[None],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Copy what the run sends. It sends more than its welcome only to a client with the key."""
        writer.write(await asyncio.wait_for(reader.readexactly(WELCOME_BYTES), HANDSHAKE_SECONDS))
        data = await asyncio.wait_for(reader.read(CHUNK_BYTES), HANDSHAKE_SECONDS)
        self.unproven.pop(task, None)
        self.proven[task] = None
        while data:
            writer.write(data)
            await writer.drain()
            data = await reader.read(CHUNK_BYTES)


def enable_keepalive(connection: socket.socket) -> None:
    """Turn on TCP keepalive, so that a connection ends soon after its client has vanished."""
    with contextlib.suppress(OSError):  # it has ended already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):  # it depends on the system
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def run_forwarder(parent_pid: int, port_settings: list[dict[str, Any]]) -> None:
    """Forward connections until the training has exited or sends SIGTERM.

    Args:
        parent_pid: the process of the training.
        port_settings: one dictionary per port: its listening ``descriptor``, the ``path`` of the
            Unix socket behind it, and the ``bytes_per_second`` and ``burst_bytes`` of each client.
    """
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    ports, servers = [], []
    for one in port_settings:
        port = ConnectionForwarder(one["path"], one["bytes_per_second"], one["burst_bytes"])
        listener = socket.socket(fileno=one["descriptor"])
        servers.append(await asyncio.start_server(port.serve, sock=listener, limit=CHUNK_BYTES))
        ports.append(port)
    while os.getppid() == parent_pid and not stopping.is_set():
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stopping.wait(), PARENT_SECONDS)
    for server in servers:
        server.close()
    for port in ports:
        for task in (*port.silent, *port.unproven):
            task.cancel()
    if connections := [task for port in ports for task in port.proven]:
        await asyncio.wait(connections, timeout=DRAIN_SECONDS)


if __name__ == "__main__":
    asyncio.run(run_forwarder(int(sys.argv[1]), json.loads(sys.argv[2])))
