"""The connection file is private, found automatically, and its errors name the remedy."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from revacnn_lightning.errors import ConnectionFileError
from revacnn_lightning.protocol import connection_file
from revacnn_lightning.protocol.connection_file import Connection


def make(run: str = "a", **changes: object) -> Connection:
    fields = {
        "run": run,
        "telemetry_endpoint": "tcp://127.0.0.1:41001",
        "request_endpoint": "tcp://127.0.0.1:41002",
        "server_key": "k" * 40,
        "pid": os.getpid(),
        "hostname": socket.gethostname(),
    }
    return Connection(**{**fields, **changes})


def test_read_returns_what_was_written(runtime_dir: Path):
    path = connection_file.write(make())
    assert path.parent == runtime_dir
    assert connection_file.read(path) == make(start_time=connection_file.read(path).start_time)


def test_only_the_owner_can_read_the_file_even_if_it_replaces_a_public_one(tmp_path: Path):
    path = tmp_path / "mine.json"
    path.write_text("{}")
    path.chmod(0o644)
    connection_file.write(make(), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_readable_by_others_is_refused_with_the_remedy(tmp_path: Path):
    path = connection_file.write(make(), tmp_path / "open.json")
    path.chmod(0o640)
    with pytest.raises(ConnectionFileError, match=f"chmod 600 {path}"):
        connection_file.read(path)


def test_the_error_of_a_missing_file_names_its_path(tmp_path: Path):
    with pytest.raises(ConnectionFileError, match=str(tmp_path / "none.json")):
        connection_file.read(tmp_path / "none.json")


@pytest.mark.parametrize("content", [b"", b"not json", b"[]", b'{"run": 1}', b"\xff\xfe"])
def test_a_malformed_file_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConnectionFileError, match="not a usable connection file"):
        connection_file.read(path)


def test_a_file_of_another_protocol_version_is_refused(tmp_path: Path):
    path = connection_file.write(make(protocol=99), tmp_path / "new.json")
    with pytest.raises(ConnectionFileError, match="protocol 99"):
        connection_file.read(path)


def test_an_unwritable_directory_is_an_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConnectionFileError, match="cannot write"):
        connection_file.write(make(), tmp_path / "file" / "run.json")


def test_the_file_of_another_run_with_the_same_path_is_not_removed(tmp_path: Path):
    path = connection_file.write(make("second"), tmp_path / "run.json")
    connection_file.remove(path, "first")
    assert path.exists()
    connection_file.remove(path, "second")
    assert not path.exists()


def test_runs_whose_process_exited_are_recognized():
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], **_CAPTURE)
    assert make("dead", pid=int(gone.stdout)).has_exited()


def test_a_run_on_another_machine_counts_as_live():
    assert not make(hostname="elsewhere", pid=2**22 + 1).has_exited()


def test_the_ssh_command_forwards_both_ports():
    assert make(hostname="gpu7").ssh_command() == (
        "ssh -N -L 41001:127.0.0.1:41001 -L 41002:127.0.0.1:41002 gpu7"
    )


def test_the_ssh_command_forwards_unix_sockets_to_ports():
    connection = make(
        telemetry_endpoint="ipc:///tmp/revacnn-a/telemetry",
        request_endpoint="ipc:///tmp/revacnn-a/requests",
        forwarded_ports=(41001, 41002),
        hostname="gpu7",
        machine="other/1",
    )
    assert connection.ssh_command() == (
        "ssh -N -L 41001:/tmp/revacnn-a/telemetry -L 41002:/tmp/revacnn-a/requests gpu7"
    )
    assert connection.addresses() == ("tcp://127.0.0.1:41001", "tcp://127.0.0.1:41002")


def test_the_ssh_command_forwards_the_address_that_the_run_listens_on():
    connection = make(
        telemetry_endpoint="tcp://10.0.0.5:41001",
        request_endpoint="tcp://gpu7:41002",
        hostname="gpu7",
    )
    assert connection.ssh_command() == (
        "ssh -N -L 41001:10.0.0.5:41001 -L 41002:127.0.0.1:41002 gpu7"
    )


def test_the_runtime_directory_of_another_user_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """sudo keeps XDG_RUNTIME_DIR."""
    monkeypatch.delenv("REVACNN_RUNTIME_DIR")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert connection_file.runtime_dir() == tmp_path / "revacnn"
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    assert connection_file.runtime_dir() == Path.home() / ".local" / "share" / "revacnn" / "runtime"


def test_the_only_secret_in_the_file_is_that_of_its_user(tmp_path: Path):
    content = msgspec.json.decode(connection_file.write(make(), tmp_path / "c.json").read_bytes())
    assert [name for name in content if "secret" in name] == ["secret_key"]


_CAPTURE = {"capture_output": True, "text": True, "check": True}


def test_a_run_is_titled_by_its_name_else_by_its_model_and_start():
    started = time.mktime((2024, 5, 6, 14, 3, 0, 0, 0, -1))
    assert make(model="Net", start_time=started).title == "Net · 14:03"
    assert make(model="Net", start_time=started, name="wide stem").title == "wide stem"
    assert make(start_time=started).title == "a · 14:03"


@pytest.mark.parametrize(("protocol", "age"), [(1, "older"), (99, "newer")])
def test_the_error_says_which_side_is_older_and_what_to_install(
    tmp_path: Path, protocol: int, age: str
):
    path = connection_file.write(make(protocol=protocol, release="7.1"), tmp_path / "run.json")
    expected = rf"revacnn-lightning 7\.1, which is {age} than .* here; install that release here"
    with pytest.raises(ConnectionFileError, match=expected):
        connection_file.read(path)


def test_a_release_in_a_file_writes_nothing_to_a_terminal(tmp_path: Path):
    path = connection_file.write(make(protocol=99, release="\x1b[2J"), tmp_path / "run.json")
    with pytest.raises(ConnectionFileError, match="has another release"):
        connection_file.read(path)
