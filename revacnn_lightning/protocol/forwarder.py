"""Sockets of a run that viewers connect to: all TCP ports, and the Unix socket of requests.

A process of its own holds them (`forwarder_main`) and forwards to the sockets of the training, so
that connections use up its descriptors, and floods its memory, instead of the training's. It starts
with the first connection. The training never waits for it.

It also keeps libzmq from aborting the training. libzmq stops reading a connection whose queue is
full. If the client then disconnects behind a heartbeat that libzmq has received already, an
assertion fails as soon as the queue is read (zeromq/libzmq#3937). The forwarder closes its end of a
connection only after the training has.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from revacnn_lightning.protocol import forked_sockets, forwarder_main

__all__ = ["LOCAL", "TCP", "RateLimitingForwarder", "TransportLimits"]

log = logging.getLogger(__name__)

WILDCARDS = {"*": "0.0.0.0", "": "0.0.0.0"}
EVERYWHERE = ("0.0.0.0", "::")
CLOSE_SECONDS = 3.0
RESTART_SECONDS = 1.0


class TransportLimits(NamedTuple):
    """How much a client may send over TCP, or over Unix sockets, to each socket of a run.

    ``title`` is what to call this way to the run. ``rates_and_bursts`` are the bytes per second and
    the bytes at a time, for one socket after the other. libzmq keeps a message of any number of
    frames until it is complete; this limits how fast it may grow.
    """

    title: str
    rates_and_bursts: tuple[tuple[int, int], ...]


TCP = TransportLimits("its TCP port", ((1_024, 16_384), (16_384, 131_072)))  # telemetry, requests
# Requests only: telemetry is direct, because a busy machine would delay one process more, and drop
# messages. A picture of 320×320 takes 0.3 MB.
LOCAL = TransportLimits("its Unix socket", ((32_768, 524_288),))


class RateLimitingForwarder:
    """Starts a process that forwards connections to the Unix sockets of a run.

    The process shields the training: it closes connections of other protocols, and limits the
    number of connections and the bytes per second of each. It starts when the first client
    connects.

    Args:
        addresses: the addresses to listen on, ``ipc://path`` or ``tcp://host:port``. Port 0 picks a
            free port.
        targets: the endpoints of the Unix sockets of the training behind them.
        limits: what a client may send.
        titles: receives the title of the limits, by the pid of each process that is started.

    Attributes:
        endpoints: the endpoints of the addresses, for clients.

    Raises:
        OSError: an address is in use, or is not one of this machine.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        targets: Sequence[str],
        limits: TransportLimits,
        titles: dict[int, str],
    ) -> None:
        with contextlib.ExitStack() as stack:
            self._listeners = [stack.enter_context(_listen(address)) for address in addresses]
            self.endpoints = tuple(map(_endpoint_of, self._listeners))
            for endpoint in self.endpoints:
                forked_sockets.close_in_forked_processes(endpoint)
                stack.callback(forked_sockets.unregister_endpoint, endpoint)
            self._woken, self._waker = map(stack.enter_context, socket.socketpair())
            self._sockets = stack.pop_all()
        self._targets, self._limits, self._titles = targets, limits, titles
        self._owner = os.getpid()
        self._lock = threading.Lock()  # of the two below
        self._is_closed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="revacnn-forwarder", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close the sockets, after what the training has sent was forwarded."""
        if os.getpid() != self._owner:
            return  # a forked process shares them, and does not have the thread
        with self._lock:
            self._is_closed = True
            process = self._process
        self._waker.send(b"\0")  # closing would not do: a forked process may have a copy
        if process is not None:
            process.terminate()
        self._thread.join(CLOSE_SECONDS)
        if process is not None and self._thread.is_alive():
            process.kill()
            self._thread.join()
        self._sockets.close()

    def _run(self) -> None:
        """Start the process when a client connects; start it again if it has ended."""
        while self._has_client():
            process = self._start()
            if process is None:
                return
            process.wait()  # like all that this thread does, without Python's lock
            if self._wait_for([self._woken], RESTART_SECONDS):
                return

    def _has_client(self) -> bool:
        """Wait for a client, and return True; return False if the forwarder is closed first."""
        ready = self._wait_for([*self._listeners, self._woken])
        return self._woken not in ready

    @staticmethod
    def _wait_for(sockets: Sequence[socket.socket], seconds: float | None = None) -> list[object]:
        with selectors.PollSelector() as selector:
            for each in sockets:
                selector.register(each, selectors.EVENT_READ)
            return [key.fileobj for key, _ in selector.select(seconds)]

    def _start(self) -> subprocess.Popen[bytes] | None:
        # Isolated: neither the user's modules nor this package are imported.
        command = [sys.executable, "-I", str(Path(forwarder_main.__file__))]
        with self._lock:
            if self._is_closed:
                return None
            try:
                self._process = subprocess.Popen(
                    [*command, str(os.getpid()), json.dumps(self._settings())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[listener.fileno() for listener in self._listeners],
                    start_new_session=True,  # Ctrl-C is for the training; its last message follows
                )
            except OSError as error:
                log.warning("No viewer can attach: cannot start %s: %s", sys.executable, error)
                return None
            self._titles[self._process.pid] = self._limits.title
            return self._process

    def _settings(self) -> list[dict[str, object]]:
        return [
            {
                "descriptor": listener.fileno(),
                "path": target.removeprefix("ipc://"),
                "bytes_per_second": rate,
                "burst_bytes": burst,
            }
            for listener, target, (rate, burst) in zip(
                self._listeners, self._targets, self._limits.rates_and_bursts, strict=True
            )
        ]


def _listen(address: str) -> socket.socket:
    try:
        if address.startswith("ipc://"):
            return _listen_locally(address.removeprefix("ipc://"))
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        host = WILDCARDS.get(host, host).strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, int(port)), family=family, backlog=socket.SOMAXCONN)
    except OSError as error:
        raise OSError(
            f"cannot listen on {address}: {error}; choose another host or port"
        ) from error


def _listen_locally(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
        listener.listen(socket.SOMAXCONN)
    except OSError:
        listener.close()
        raise
    return listener


def _endpoint_of(listener: socket.socket) -> str:
    name = listener.getsockname()
    if isinstance(name, str):
        return f"ipc://{name}"
    host, port = name[:2]
    if host in EVERYWHERE:
        host = socket.gethostname()  # from another machine, 0.0.0.0 would be that machine
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
