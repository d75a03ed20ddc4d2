"""TCP sockets of a run that everybody who reaches the machine may connect to.

A process of its own holds them (`forwarder_main`) and forwards to the run's Unix sockets, so that
connections use up its descriptors instead of the training's. The training never waits for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from revacnn_lightning.protocol import forwarder_main

__all__ = ["RateLimitingForwarder"]

WILDCARDS = {"*": "0.0.0.0", "": "0.0.0.0"}
EVERYWHERE = ("0.0.0.0", "::")
CLOSE_SECONDS = 3.0
# What a client may send, in bytes per second and at a time: subscriptions, and requests. libzmq
# keeps a message of any number of frames until it is complete; this limits how fast it may grow.
TELEMETRY_INPUT = (1_024, 16_384)
REQUEST_INPUT = (16_384, 131_072)


class RateLimitingForwarder:
    """Starts a process that forwards TCP connections to the Unix sockets of a run.

    The process shields the training: it closes connections of other protocols, and limits the
    number of connections and the bytes per second of each.

    Args:
        host: the address to listen on.
        ports: the ports of telemetry and of requests. 0 picks a free port.
        targets: the endpoints of the Unix sockets of telemetry and of requests.

    Attributes:
        endpoints: the TCP endpoints of telemetry and of requests, for clients on any machine.

    Raises:
        OSError: a port is in use, or the address is not one of this machine.
    """

    def __init__(self, host: str, ports: Sequence[int], targets: Sequence[str]) -> None:
        with contextlib.ExitStack() as stack:
            listeners = [stack.enter_context(_listen(host, port)) for port in ports]
            self.endpoints = (_endpoint_of(listeners[0]), _endpoint_of(listeners[1]))
            limits = (TELEMETRY_INPUT, REQUEST_INPUT)
            settings = [
                {
                    "descriptor": listener.fileno(),
                    "path": target.removeprefix("ipc://"),
                    "rate": rate,
                    "burst": burst,
                }
                for listener, target, (rate, burst) in zip(listeners, targets, limits, strict=True)
            ]
            # Isolated: neither the user's modules nor this package are imported.
            command = [sys.executable, "-I", str(Path(forwarder_main.__file__))]
            self._process = subprocess.Popen(
                [*command, str(os.getpid()), json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                pass_fds=[listener.fileno() for listener in listeners],
                start_new_session=True,  # Ctrl-C is for the training; its last message follows
            )

    @property
    def pid(self) -> int:
        """The id of the forwarding process."""
        return self._process.pid

    def close(self) -> None:
        """End the process, after it has forwarded what the training has sent."""
        self._process.terminate()
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _listen(host: str, port: int) -> socket.socket:
    host = WILDCARDS.get(host, host).strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=socket.SOMAXCONN)
    except OSError as error:
        raise OSError(
            f"cannot listen on tcp://{host}:{port}: {error}; choose another host or port"
        ) from error


def _endpoint_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if host in EVERYWHERE:
        host = socket.gethostname()  # from another machine, 0.0.0.0 would be that machine
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
