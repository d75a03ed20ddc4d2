"""Heartbeats of all ranks to rank 0, from a thread of each.

A rank that stops makes the others wait in a collective, where none of them runs any Python. Threads
run there all the same. A connection closes as soon as a process ends.

A worker sends one line per heartbeat: how many batches it has begun. After an internal error of
ReVACNN, it sends ``error`` and the exception. Its last line is ``finished``, or ``failed`` and the
exception that has ended its training.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable

import msgspec
from msgspec import Struct

from revacnn_lightning.protocol.rank_messages import TroubledRank
from revacnn_lightning.runtime.ranks.rank_watch import HEARTBEAT_SECONDS, RankWatch

__all__ = ["HeartbeatAddress", "HeartbeatReceiver", "HeartbeatSender"]

log = logging.getLogger(__name__)

LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"
POLL_SECONDS = 0.2
PUBLISH_SECONDS = 1.0  # between two publications without a change
CONNECT_SECONDS = 5.0
MAX_LINE_BYTES = 2000  # more than `MAX_DETAIL` characters of four bytes
MAX_DETAIL = 300  # characters


class HeartbeatAddress(Struct, frozen=True):
    """Where rank 0 receives heartbeats. ``token`` proves that a connection is that of a rank."""

    machine: str
    port: int
    token: str

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> HeartbeatAddress:
        return msgspec.msgpack.decode(data, type=cls)


class HeartbeatReceiver:
    """Receives the heartbeats in rank 0, in a thread, until `close`.

    Args:
        watch: is updated with every heartbeat.
        get_step: returns how many batches rank 0 has begun.
        is_local: whether all ranks are on this machine.

    Attributes:
        address: where the others connect.
        publish: is called by the thread with the ranks in trouble, on every change and each second.

    Raises:
        OSError: no port is free.
    """

    def __init__(self, watch: RankWatch, get_step: Callable[[], int], *, is_local: bool) -> None:
        self._watch = watch
        self._get_step = get_step
        self.publish: Callable[[list[TroubledRank]], None] | None = None
        self._listener = socket.create_server((LOOPBACK if is_local else EVERYWHERE, 0))
        self._listener.setblocking(False)
        port = self._listener.getsockname()[1]
        self.address = HeartbeatAddress(socket.gethostname(), port, secrets.token_hex(16))
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="revacnn-ranks", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and close all connections."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        published, due = None, 0.0
        try:
            while not self._closing.is_set():
                for key, _ in self._selector.select(POLL_SECONDS):
                    self._accept() if key.data is None else self._read(key.data)
                states = self._watch.states(self._get_step())
                problems = [(state.rank, state.problem) for state in states]
                publish = self.publish
                if publish and (problems != published or time.monotonic() >= due):
                    published, due = problems, time.monotonic() + PUBLISH_SECONDS
                    publish(states)
        except Exception:  # a bug of this package must not stop the training
            log.warning("The ranks of this training are no longer watched", exc_info=True)
        finally:
            for key in list(self._selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
            self._selector.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            self._selector.register(connection, selectors.EVENT_READ, _Connection(connection))

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, connection.rest = (connection.rest + data).split(b"\n")
        is_valid = len(connection.rest) <= MAX_LINE_BYTES
        for line in lines:
            is_valid = is_valid and self._receive_line(connection, line.decode(errors="replace"))
        if data and is_valid:
            return
        self._selector.unregister(connection.socket)
        connection.socket.close()
        if connection.rank is not None:
            self._watch.record_lost_rank(connection.rank)

    def _receive_line(self, connection: _Connection, line: str) -> bool:
        """Return whether a line is one of a rank."""
        word, _, rest = line.partition(" ")
        rank = connection.rank
        if rank is None:
            if not secrets.compare_digest(word.encode(), self.address.token.encode()):
                return False
            connection.rank = int(rest)
        elif word == "finished":
            self._watch.finish(rank)
        elif word == "failed":
            self._watch.record_lost_rank(rank, rest)
        elif word == "error":
            self._watch.report_error(rank, rest)
        else:
            self._watch.receive(rank, int(word))
        return True


class _Connection:
    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.rank: int | None = None  # None until it has proved to be that of a rank
        self.rest = b""  # of a line that has not arrived completely


class HeartbeatSender:
    """Sends the heartbeats of a worker rank, in a thread, until `close`.

    Args:
        address: where rank 0 receives them.
        rank: the rank of this process.
        get_step: returns how many batches it has begun.

    Raises:
        OSError: rank 0 cannot be reached.
    """

    def __init__(self, address: HeartbeatAddress, rank: int, get_step: Callable[[], int]) -> None:
        is_local = address.machine == socket.gethostname()
        host = LOOPBACK if is_local else os.environ.get("MASTER_ADDR", address.machine)
        self._socket = socket.create_connection((host, address.port), CONNECT_SECONDS)
        self._get_step = get_step
        self._sending = threading.Lock()
        self._send(f"{address.token} {rank}")
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="revacnn-heartbeat", daemon=True)
        self._thread.start()

    def report_error(self, error: str) -> None:
        """Send that ReVACNN has failed in this rank, which still trains."""
        with contextlib.suppress(OSError):  # rank 0 has ended
            self._send(f"error {_as_detail(error)}")

    def close(self, failure: str | None) -> None:
        """Leave: the training has finished or, given a failure, raised it."""
        self._closing.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # rank 0 has ended
            self._send("finished" if failure is None else f"failed {_as_detail(failure)}")
        self._socket.close()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # rank 0 has ended
            while not self._closing.wait(HEARTBEAT_SECONDS):
                self._send(str(self._get_step()))

    def _send(self, line: str) -> None:
        with self._sending:  # two threads send
            self._socket.sendall(f"{line}\n".encode())


def _as_detail(text: str) -> str:
    """Return a text in one line that is short enough for `MAX_LINE_BYTES`."""
    return " ".join(text.split())[:MAX_DETAIL]
