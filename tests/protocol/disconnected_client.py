"""A run whose client disconnects while its requests wait for a long batch to end.

``python -m tests.protocol.disconnected_client`` writes how many requests have arrived afterwards.
"""

from __future__ import annotations

import subprocess
import sys
import time

from revacnn_lightning.protocol.messages import Request
from revacnn_lightning.protocol.requests import Undo
from revacnn_lightning.protocol.sockets import Keys, Requester, RequestServer

REQUESTS = 60
SECONDS_BETWEEN = 0.04  # longer than a second in all: a heartbeat is between them


def send_requests(endpoint: str, server_key: str) -> None:
    client = Requester(endpoint, server_key)
    for index in range(REQUESTS):
        client.send(Request(str(index), Undo()))
        time.sleep(SECONDS_BETWEEN)
    sys.stdout.write("sent\n")
    sys.stdout.flush()
    time.sleep(60)  # until it is killed


def main() -> None:
    keys = Keys.generate()
    server = RequestServer("tcp://127.0.0.1:0", keys)
    command = [sys.executable, "-m", __spec__.name, server.endpoint, keys.public]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        client.stdout.readline()
        received = [next(server.receive())]  # libzmq reads on, until its queue is full again
        time.sleep(0.2)
        client.kill()
    time.sleep(0.2)
    for _ in range(20):
        received += server.receive()
        time.sleep(0.02)
    server.close()
    sys.stdout.write(f"{len(received)}\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        send_requests(*sys.argv[1:])
    else:
        main()
