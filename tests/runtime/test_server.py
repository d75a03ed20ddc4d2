"""Where a run listens, and what it leaves behind."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
import pytest

from revacnn_lightning.client.run import Run
from revacnn_lightning.errors import ConnectionFileError
from revacnn_lightning.protocol import connection_file
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.local_sockets import HAS_UNIX_SOCKETS, SocketDirectory
from revacnn_lightning.runtime import server
from revacnn_lightning.runtime.server import Endpoints, RunServer
from tests.protocol.test_sockets import STATUS, until

pytestmark = pytest.mark.skipif(not HAS_UNIX_SOCKETS, reason="this system has no Unix sockets")


def socket_directory(server: RunServer) -> Path:
    return Path(server.publisher.endpoint.removeprefix("ipc://")).parent


def test_by_default_only_this_user_can_connect():
    """Other users of the machine used up the descriptors of the training."""
    run_server = RunServer("run", "Net", Endpoints())
    directory = socket_directory(run_server)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert directory.stat().st_uid == os.geteuid()
    assert run_server.connection.telemetry_endpoint.startswith("ipc://")
    run = Run(run_server.connection)
    until(lambda: (run_server.publisher.publish(STATUS), STATUS in run.poll())[1])
    run.close()
    run_server.close()
    assert not directory.exists()
    assert not run_server.connection_file.exists()


def test_a_host_or_a_port_asks_for_tcp():
    assert Endpoints().tcp_host is None
    assert Endpoints(telemetry_port=41001).tcp_host == "127.0.0.1"
    assert Endpoints("0.0.0.0").tcp_host == "0.0.0.0"


def test_a_file_of_its_own_does_not_depend_on_the_runtime_directory(
    tmp_path: Path, runtime_dir: Path
):
    runtime_dir.mkdir()
    runtime_dir.chmod(0o777)
    run_server = RunServer("run", "Net", Endpoints(connection_file=tmp_path / "run.json"))
    assert run_server.connection_file == tmp_path / "run.json"
    run_server.close()
    with pytest.raises(ConnectionFileError, match="chmod 700"):
        RunServer("run", "Net", Endpoints())


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_file_of_its_own_leads_to_what_a_killed_run_has_left(tmp_path: Path):
    """The sockets of a killed run stayed in the folder for temporary files."""
    file = tmp_path / "run.json"
    left = SocketDirectory()
    killed = Connection.of_this_process(
        run="killed", telemetry_endpoint="", request_endpoint="", server_key="",
        local_endpoints=left.endpoints,
    )  # fmt: skip
    connection_file.write(msgspec.structs.replace(killed, process_start=1), file)
    run_server = RunServer("run", "Net", Endpoints(connection_file=file))
    assert not left.path.exists()
    assert connection_file.read(file).run == "run"
    run_server.close()


def test_nothing_is_left_if_the_connection_file_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    directories: list[Path] = []

    class RecordedDirectory(SocketDirectory):
        def __init__(self) -> None:
            super().__init__()
            directories.append(self.path)

    monkeypatch.setattr(server, "SocketDirectory", RecordedDirectory)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConnectionFileError):
        RunServer("run", "Net", Endpoints(connection_file=tmp_path / "file" / "run.json"))
    [directory] = directories
    assert not directory.exists()
