"""The newest living run on this machine is found, whatever other files there are."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from revacnn_lightning.errors import ConnectionFileError
from revacnn_lightning.protocol import connection_file, run_discovery
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.local_sockets import SocketDirectory, do_sockets_exist, has_listener
from revacnn_lightning.protocol.processes import machine_id, process_start
from revacnn_lightning.protocol.run_discovery import (
    find_newest_run,
    find_unusable_connection_files,
    is_reachable,
    list_runs,
    remove_exited_runs,
)

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


def make(run: str = "a", **changes: object) -> Connection:
    fields = {
        "run": run,
        "telemetry_endpoint": "tcp://127.0.0.1:9",
        "request_endpoint": "tcp://127.0.0.1:9",
        "server_key": "k" * 40,
        "pid": os.getpid(),
        "hostname": socket.gethostname(),
        "machine": machine_id(),
        "process_start": process_start(os.getpid()),
    }
    return Connection(**{**fields, **changes})


def elsewhere(run: str, **changes: object) -> Connection:
    return make(run, **{"hostname": "gpu7", "machine": "other-boot/1", "pid": 7, **changes})


GONE = ("ipc:///tmp/revacnn-gone/telemetry", "ipc:///tmp/revacnn-gone/requests")


@contextlib.contextmanager
def listening(backlog: int = 100) -> Iterator[tuple[str, str]]:
    """Listen at the Unix sockets of a run."""
    directory = SocketDirectory()
    with ExitStack() as stack:
        stack.callback(directory.remove)
        for endpoint in directory.endpoints:
            end = stack.enter_context(socket.socket(socket.AF_UNIX))
            end.bind(endpoint.removeprefix("ipc://"))
            end.listen(backlog)
        yield directory.endpoints


def test_the_newest_live_run_is_found(runtime_dir: Path):
    connection_file.write(make("old", start_time=1.0))
    connection_file.write(make("new", start_time=2.0))
    (runtime_dir / "run-broken.json").write_text("{")
    assert [run.run for run in list_runs()] == ["new", "old"]
    assert find_newest_run().run == "new"


@needs_proc
def test_a_newest_run_without_its_sockets_hid_one_that_answers():
    """Its process existed, so nobody asked whether it listens."""
    with listening() as endpoints:
        for run, started, own in (
            ("answers", 1.0, endpoints),
            ("refuses", 2.0, GONE),
            ("vanished", 3.0, GONE),
        ):
            connection_file.write(make(run, start_time=started, local_endpoints=own))
        assert find_newest_run().run == "answers"
        assert [run.run for run in list_runs()] == ["answers", "vanished", "refuses"]


def test_a_run_that_has_closed_one_socket_after_a_flood_answers():
    with listening() as (telemetry, requests):
        Path(requests.removeprefix("ipc://")).unlink()
        assert is_reachable(make(telemetry_endpoint=telemetry, request_endpoint=requests))


def test_a_stopped_run_answers_though_many_connections_wait_for_it():
    with listening(backlog=0) as (_, requests), ExitStack() as waiting:
        for _ in range(3):
            client = waiting.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(requests.removeprefix("ipc://"))
        assert has_listener(requests)


@needs_proc
def test_a_stale_file_that_named_the_sockets_of_a_live_run_cut_it_off():
    with listening() as endpoints:
        connection_file.write(make("live", start_time=1.0, local_endpoints=endpoints))
        connection_file.write(make("stale", process_start=1, local_endpoints=endpoints))
        assert [run.run for run in list_runs()] == ["live"]
        assert do_sockets_exist(endpoints)


def test_without_a_run_the_error_says_how_to_start_one():
    with pytest.raises(ConnectionFileError, match=r"callbacks=\[ReVACNN\(\)\]"):
        find_newest_run()


def test_a_newer_run_on_another_machine_is_not_taken_for_the_newest():
    """A home directory on NFS holds the files of all machines."""
    connection_file.write(make("here", start_time=time.time() - 3600))
    connection_file.write(elsewhere("there"))
    assert find_newest_run().run == "here"
    assert [run.run for run in list_runs()] == ["here"]


def test_a_run_on_another_machine_is_listed_if_it_accepts_connections():
    with socket.create_server(("127.0.0.1", 0)) as forwarded:
        port = forwarded.getsockname()[1]
        telemetry, requests = (
            "ipc:///tmp/revacnn-there/telemetry",
            "ipc:///tmp/revacnn-there/requests",
        )
        connection_file.write(
            elsewhere(
                "there",
                telemetry_endpoint=telemetry,
                request_endpoint=requests,
                forwarded_ports=(port, port),
            )
        )
        assert find_newest_run().run == "there"
    run_discovery._accepts_connections.cache_clear()
    assert list_runs() == []


@needs_proc
def test_a_run_whose_pid_belongs_to_another_process_is_gone():
    connection_file.write(make("real", start_time=1.0))
    connection_file.write(make("stale", process_start=1))
    assert find_newest_run().run == "real"


@needs_proc
def test_the_files_of_killed_runs_are_removed(runtime_dir: Path):
    directory = SocketDirectory()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(directory.path / "telemetry"))
    listening.close()
    connection_file.write(make("killed", process_start=1, local_endpoints=directory.endpoints))
    connection_file.write(make("live"))
    connection_file.write(elsewhere("there"))
    remove_exited_runs()
    assert sorted(path.name for path in runtime_dir.iterdir()) == [
        "run-live.json", "run-there.json",
    ]  # fmt: skip
    assert not directory.path.exists()


@needs_proc
def test_a_run_before_a_reboot_is_gone():
    rebooted = elsewhere("a", hostname=socket.gethostname(), start_time=1.0)
    assert rebooted.has_exited()
    assert not elsewhere("a", start_time=1.0).has_exited()


def test_nothing_but_sockets_is_removed_for_a_killed_run(tmp_path: Path):
    """The path comes from a file."""
    folder = tmp_path / "revacnn-mine"
    folder.mkdir()
    (folder / "requests").write_text("mine")
    connection_file.write(
        make("killed", process_start=1, local_endpoints=(f"ipc://{folder}/requests",) * 2)
    )
    remove_exited_runs()
    assert (folder / "requests").read_text() == "mine"


def test_a_directory_that_others_can_write_to_is_refused(runtime_dir: Path):
    connection_file.write(make())
    runtime_dir.chmod(0o777)
    with pytest.raises(ConnectionFileError, match="chmod 700"):
        list_runs()
    with pytest.raises(ConnectionFileError, match="chmod 700"):
        connection_file.write(make())


def test_a_run_of_another_protocol_version_is_not_passed_over_in_silence(runtime_dir: Path):
    connection_file.write(make("new", protocol=99, release="7.1"))
    connection_file.write(make("gone", protocol=1, pid=2**22 + 1))
    (runtime_dir / "run-broken.json").write_text("{")
    (runtime_dir / "run-broken.json").chmod(0o600)
    reasons = find_unusable_connection_files()
    assert sorted(path.name for path in reasons) == ["run-broken.json", "run-new.json"]
    with pytest.raises(ConnectionFileError, match="is not a usable connection file"):
        find_newest_run()
    (runtime_dir / "run-broken.json").unlink()
    with pytest.raises(ConnectionFileError, match=r"revacnn-lightning 7\.1, which is newer"):
        find_newest_run()
