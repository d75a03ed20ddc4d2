"""Forked processes, such as the workers of a data loader, and the ports of a run."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import pytest

from revacnn_lightning.protocol import forked_sockets
from revacnn_lightning.protocol.sockets import Keys, Publisher, RequestServer, Subscriber
from tests.viewer.processes import wait_for

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def in_a_forked_process(check: Callable[[], bool]) -> bool:
    """Return the result of ``check`` in a child, which exits as the workers of a loader do."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def port_of(endpoint: str) -> int:
    return int(endpoint.rpartition(":")[2])


def test_a_forked_process_does_not_keep_the_port_in_use():
    keys = Keys.generate()
    server = RequestServer("tcp://127.0.0.1:0", keys)
    endpoint = server.endpoint
    started, ended = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # a worker that outlives the run
        os.write(started[1], b"x")
        os.read(ended[0], 1)
        os._exit(0)
    os.read(started[0], 1)
    server.close()
    try:
        RequestServer(endpoint, keys).close()
    finally:
        os.write(ended[1], b"x")
        os.waitpid(child, 0)
        for descriptor in (*started, *ended):
            os.close(descriptor)


def test_a_forked_process_has_no_copy_of_a_connection():
    keys = Keys.generate()
    publisher = Publisher("tcp://127.0.0.1:0", keys)
    subscriber = Subscriber(publisher.endpoint, keys.public)
    wait_for(publisher.has_subscribers)

    def has_no_copies() -> bool:
        for name in os.listdir(forked_sockets.DESCRIPTORS):
            try:
                inherited = socket.socket(fileno=int(name))
            except OSError:
                continue
            address = inherited.getsockname()
            inherited.detach()
            if isinstance(address, tuple) and address[1:2] == (port_of(publisher.endpoint),):
                return False
        return True

    assert in_a_forked_process(has_no_copies)
    assert publisher.has_subscribers()
    subscriber.close()
    publisher.close()


def test_closing_in_a_forked_process_does_not_close_the_sockets_of_its_parent():
    keys = Keys.generate()
    publisher = Publisher("tcp://127.0.0.1:0", keys)

    def close() -> bool:
        publisher.close()
        return True

    assert in_a_forked_process(close)
    subscriber = Subscriber(publisher.endpoint, keys.public)
    wait_for(publisher.has_subscribers)
    subscriber.close()
    publisher.close()


def test_other_sockets_stay_open_in_a_forked_process():
    server = RequestServer("tcp://127.0.0.1:0", Keys.generate())
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        assert in_a_forked_process(lambda: other.getsockname()[1] > 0)
    server.close()
    assert port_of(server.endpoint) not in forked_sockets._addresses
