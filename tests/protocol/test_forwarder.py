"""Whoever reaches the sockets of a run can neither starve nor abort its training."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from revacnn_lightning.protocol import connection_file, forwarder, forwarder_main
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.local_sockets import HAS_UNIX_SOCKETS
from revacnn_lightning.protocol.messages import Request
from revacnn_lightning.protocol.requests import Undo
from revacnn_lightning.protocol.run_discovery import list_runs
from revacnn_lightning.protocol.sockets import Keys, Requester, Subscriber
from revacnn_lightning.runtime.server import Endpoints, RunServer
from tests.protocol.test_sockets import STATUS, until

pytestmark = pytest.mark.skipif(
    not HAS_UNIX_SOCKETS or not Path("/proc/self/fd").exists(), reason="counts files in /proc"
)


ROOT = Path(__file__).parents[2]


@pytest.fixture(params=[None, "127.0.0.1"], ids=["local", "TCP"])
def run(request: pytest.FixtureRequest) -> Iterator[RunServer]:
    server = RunServer("run", "Net", Endpoints(request.param))
    yield server
    server.close()


def descriptors() -> int:
    """Return the number of descriptors of this process, which is the training here."""
    return len(os.listdir("/proc/self/fd"))


def connect(endpoint: str) -> socket.socket:
    if endpoint.startswith("ipc://"):
        local = socket.socket(socket.AF_UNIX)
        local.connect(endpoint.removeprefix("ipc://"))
        return local
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return socket.create_connection((host, int(port)))


GREETING = b"\xff" + bytes(7) + b"\x01\x7f\x03\x01" + forwarder_main.MECHANISM + bytes(32)


def record_first_message(server_key: str, keys: Keys | None) -> bytes:
    """Return what a viewer sends first, to a listener that is not the run."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        viewer = Requester(f"tcp://127.0.0.1:{listener.getsockname()[1]}", server_key, keys)
        connection, _ = listener.accept()
        with connection:
            connection.sendall(GREETING)
            n = forwarder_main.GREETING_BYTES + forwarder_main.HELLO_BYTES
            message = connection.recv(n, socket.MSG_WAITALL)
        viewer.close()
    return message


def assert_a_viewer_attaches(run: RunServer) -> None:
    connection = run.connection
    subscriber = Subscriber(connection.telemetry_endpoint, connection.server_key, connection.keys)
    requester = Requester(connection.request_endpoint, connection.server_key, connection.keys)
    until(lambda: (run.publisher.publish(STATUS), STATUS in list(subscriber.poll()))[1])
    requester.send(Request("mine", Undo()))
    received: list[Request] = []
    until(
        lambda: received.extend(request for _, request in run.request_server.receive()) or received
    )
    assert received[0].body == Undo()
    subscriber.close()
    requester.close()


def test_idle_connections_cost_the_training_no_descriptor(run: RunServer):
    """A thousand of them made the user's own ``open()`` fail."""
    assert_a_viewer_attaches(run)
    until(lambda: not run.publisher.has_subscribers())
    before = descriptors()
    endpoints = [run.connection.telemetry_endpoint, run.connection.request_endpoint]
    if endpoints[0].startswith("ipc://"):
        endpoints[0] = endpoints[1]
    idle = [connect(endpoints[index % 2]) for index in range(300)]
    assert_a_viewer_attaches(run)
    assert descriptors() - len(idle) <= before + 4
    for one in idle:
        one.close()


def test_other_protocols_do_not_reach_the_training(run: RunServer):
    for beginning in (
        b"GET / HTTP/1.1\r\n\r\n" * 20,
        b"\xff" + bytes(8) + b"\x7f\x03" + bytes(300),
    ):
        with connect(run.connection.request_endpoint) as stranger:
            stranger.settimeout(30)
            stranger.sendall(beginning)
            received = b""
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                while data := stranger.recv(1000):
                    received += data
            assert len(received) <= forwarder_main.GREETING_BYTES  # and then it was closed


def test_connections_without_the_key_give_way(run: RunServer):
    """The first message of a viewer may have been recorded: what follows needs the key."""
    first_message = record_first_message(run.connection.server_key, run.connection.keys)
    before = descriptors()
    strangers = []
    for _ in range(3 * forwarder_main.MAX_CONNECTIONS):
        strangers.append(connect(run.connection.request_endpoint))
        strangers[-1].sendall(first_message)
    assert_a_viewer_attaches(run)
    assert descriptors() - len(strangers) <= before + forwarder_main.MAX_CONNECTIONS + 4
    for one in strangers:
        one.close()


def test_the_last_message_arrives(run: RunServer):
    connection = run.connection
    subscriber = Subscriber(connection.telemetry_endpoint, connection.server_key, connection.keys)
    until(lambda: (run.publisher.has_subscribers(), bool(run.publisher._topics))[1])
    run.publisher.publish(STATUS)
    run.close()
    assert STATUS in until(lambda: list(subscriber.poll()))
    subscriber.close()


def test_a_process_starts_with_the_first_viewer_and_ends_with_the_run(run: RunServer):
    assert not run._titles
    assert_a_viewer_attaches(run)
    [pid] = run._titles
    run.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_viewers_attach_again_after_the_process_was_killed(run: RunServer):
    assert_a_viewer_attaches(run)
    [pid] = run._titles
    os.kill(pid, signal.SIGKILL)
    assert_a_viewer_attaches(run)
    assert len(run._titles) == 2


def test_a_forked_process_neither_ends_the_sockets_nor_delays_their_end(run: RunServer):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # a worker that outlives the run
        run._forwarders.close()
        os.read(reading, 1)
        os._exit(0)
    try:
        assert_a_viewer_attaches(run)
        started = time.monotonic()
        run.close()
        assert time.monotonic() - started < forwarder.CLOSE_SECONDS
    finally:
        os.write(writing, b"x")
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("target", ["telemetry", "requests"])
def test_heartbeats_behind_a_full_queue_do_not_abort_the_training(target: str):
    """Directly connected, libzmq ended the process: ``Assertion failed: !_io_error``."""
    command = [sys.executable, "-m", "tests.protocol.hostile_heartbeats", target]
    attack = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (attack.returncode, attack.stdout) == (0, "alive\n"), attack.stderr


def test_viewers_attach_while_the_run_has_closed_its_sockets_after_a_flood(
    run: RunServer, capfd: pytest.CaptureFixture[str]
):
    """The process ended with a traceback if it was started at this moment."""
    run.request_server._disconnect_all(1.0)
    with connect(run.connection.request_endpoint) as early:
        early.settimeout(30)
        assert early.recv(1) == b""
    assert_a_viewer_attaches(run)
    assert "Traceback" not in capfd.readouterr().err


KILLED = """
from revacnn_lightning.runtime.server import Endpoints, RunServer
server = RunServer("killed", "Net", Endpoints("127.0.0.1"))
print(server.connection_file, flush=True)
input()
"""


def test_nothing_remains_of_a_training_that_was_killed():
    killed = subprocess.Popen(
        [sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert killed.stdout is not None
    connection = connection_file.read(killed.stdout.readline().strip())
    connect(connection.telemetry_endpoint).close()
    killed.kill()
    killed.communicate()
    until(lambda: not accepts_connections(connection.telemetry_endpoint))
    assert connection.local_endpoints is not None
    directory = Path(connection.local_endpoints[0].removeprefix("ipc://")).parent
    assert directory.exists()
    assert list_runs() == []
    assert not directory.exists()


def accepts_connections(endpoint: str) -> bool:
    try:
        connect(endpoint).close()
    except OSError:
        return False
    return True


def test_an_open_address_is_named_after_the_machine():
    server = RunServer("run", "Net", Endpoints("0.0.0.0"))
    host = server.connection.telemetry_endpoint.removeprefix("tcp://").rpartition(":")[0]
    assert host == socket.gethostname()
    elsewhere = Connection(**{**_fields(server.connection), "local_endpoints": None})
    assert elsewhere.addresses() == (elsewhere.telemetry_endpoint, elsewhere.request_endpoint)
    server.close()


def _fields(connection: Connection) -> dict[str, object]:
    return {name: getattr(connection, name) for name in connection.__struct_fields__}
