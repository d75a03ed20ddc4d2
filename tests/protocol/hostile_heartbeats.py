"""A client that fills a queue of a run, sends heartbeats behind it, and disconnects.

``python -m tests.protocol.hostile_heartbeats telemetry|requests [directly]`` writes "alive" if the
process of the run outlives this. "directly" leaves the forwarder out.
"""

from __future__ import annotations

import select
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

import zmq

from revacnn_lightning.protocol import run_sockets
from revacnn_lightning.runtime.server import Endpoints, RunServer

MESSAGES = 100
SECONDS_BETWEEN = 0.002  # two heartbeats, of one each millisecond
READ_SECONDS = 1.5


class Relay(threading.Thread):
    """Forwards a connection. What the client sends while `holds` is set arrives at its end."""

    def __init__(self, path: str, target: str) -> None:
        super().__init__()
        self.holds = threading.Event()
        self._target = target
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()

    def run(self) -> None:
        client, _ = self._listener.accept()
        run, kept = socket.socket(socket.AF_UNIX), b""
        run.connect(self._target)
        with self._listener, client, run:
            while True:
                ready, _, _ = select.select([client, run], [], [])
                if run in ready:
                    client.sendall(run.recv(65_536))
                if client in ready:
                    if not (data := client.recv(65_536)):
                        break
                    if self.holds.is_set():
                        kept += data
                    else:
                        run.sendall(data)
            run.sendall(kept)


def attack(run: RunServer, endpoint: str, kind: int, message: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "relay")
        relay = Relay(path, endpoint.removeprefix("ipc://"))
        relay.start()
        context = zmq.Context()
        hostile = context.socket(kind)
        hostile.heartbeat_ivl, hostile.heartbeat_timeout = 1, 60_000
        hostile.curve_serverkey = run.connection.server_key.encode()
        hostile.curve_publickey = run.connection.public_key.encode()
        hostile.curve_secretkey = run.connection.secret_key.encode()
        connected = hostile.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        hostile.connect(f"ipc://{path}")
        connected.recv_multipart()
        relay.holds.set()
        for index in range(MESSAGES):
            hostile.send_multipart([*message[:-1], message[-1] + b"%d" % index])
            time.sleep(SECONDS_BETWEEN)
        hostile.disable_monitor()
        context.destroy(linger=0)
        relay.join()


def main() -> None:
    target, directly = sys.argv[1], "directly" in sys.argv
    run_sockets.REQUEST_QUEUE = 8
    run = RunServer("run", "Net", Endpoints())
    if target == "telemetry":
        own, public = run.publisher.endpoint, run.connection.telemetry_endpoint
        kind, message = zmq.XSUB, [b"\x01t"]
    else:
        own, public = run.request_server.endpoint, run.connection.request_endpoint
        kind, message = zmq.DEALER, [b"request", b""]
    attack(run, own if directly else public, kind, message)
    ends = time.monotonic() + READ_SECONDS
    while time.monotonic() < ends:
        list(run.request_server.receive())
        run.publisher.has_subscribers()
        time.sleep(0.01)
    run.close()
    sys.stdout.write("alive\n")


if __name__ == "__main__":
    main()
