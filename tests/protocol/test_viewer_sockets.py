"""The sockets of a viewer."""

from __future__ import annotations

import subprocess
import sys

from revacnn_lightning.protocol.messages import Message
from revacnn_lightning.protocol.sockets import Publisher, Subscriber
from tests.protocol.test_sockets import STATUS, until

# A queue that stays full for several times the interval within which a heartbeat must arrive.
SELDOM_POLLS = """
import time
from revacnn_lightning.protocol import base_socket, viewer_sockets
from revacnn_lightning.protocol.sockets import Keys, Publisher, Subscriber
from tests.protocol.test_sockets import STATUS
base_socket.HEARTBEAT_MS, base_socket.HEARTBEAT_TIMEOUT_MS = 10, 30
viewer_sockets.RECEIVE_QUEUE = 2
keys = Keys.generate()
publisher = Publisher("tcp://127.0.0.1:0", keys)
subscriber = Subscriber(publisher.endpoint, keys.public)
while not publisher.has_subscribers():
    time.sleep(0.01)
for i in range(25):
    for _ in range(50):
        publisher.has_subscribers()
        publisher.publish(STATUS)
    time.sleep(0.05 + 0.002 * i)
    list(subscriber.poll())
print("done")
"""


def test_a_viewer_that_seldom_polls_does_not_end():
    """libzmq aborted the process, a training with a viewer in it included."""
    ran = subprocess.run(
        [sys.executable, "-c", SELDOM_POLLS], capture_output=True, text=True, timeout=120
    )
    assert (ran.stdout, ran.returncode) == ("done\n", 0), ran.stderr


def test_telemetry_arrives_after_a_reconnect(publisher: Publisher, subscriber: Subscriber):
    def received() -> list[Message]:
        publisher.publish(STATUS)
        return list(subscriber.poll())

    until(received)
    subscriber.reconnect()
    until(received)
