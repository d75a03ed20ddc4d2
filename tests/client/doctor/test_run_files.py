"""The runtime directory and the connection files in it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from revacnn_lightning.client.doctor import run_files
from revacnn_lightning.client.doctor.run_files import (
    check_connection_files,
    check_runtime_dir,
    file_system_type,
)
from revacnn_lightning.protocol import connection_file
from revacnn_lightning.protocol.connection_file import Connection


def make(run: str = "a", **changes: object) -> Connection:
    fields = {"pid": os.getpid(), "hostname": socket.gethostname(), **changes}
    return Connection(run, "tcp://127.0.0.1:9", "tcp://127.0.0.1:9", "k" * 40, **fields)


def statuses(file: Path | None = None) -> list[str]:
    return [finding.status for finding in check_connection_files(file, [])]


def test_a_private_directory_is_fine(runtime_dir: Path):
    [finding] = check_runtime_dir()
    assert (finding.status, "does not exist yet" in finding.text) == ("ok", True)
    connection_file.write(make())
    [finding] = check_runtime_dir()
    assert (finding.status, str(runtime_dir) in finding.text) == ("ok", True)


def test_a_directory_that_others_can_write_to_is_a_problem_with_the_command(runtime_dir: Path):
    connection_file.write(make())
    runtime_dir.chmod(0o777)
    [finding] = check_runtime_dir()
    assert finding.status == "problem"
    assert finding.advice == f"run: chmod 700 {runtime_dir}"
    assert statuses() == ["problem"]


def test_a_directory_on_a_network_is_noted(runtime_dir: Path, monkeypatch: pytest.MonkeyPatch):
    connection_file.write(make())
    monkeypatch.setattr(run_files, "file_system_type", lambda _: "nfs4")
    [finding] = check_runtime_dir()
    assert finding.status == "note"
    assert "nfs4" in finding.text


def test_the_file_system_is_that_of_the_innermost_mount(tmp_path: Path):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"a / ext4 rw 0 0\nb {tmp_path} nfs4 rw 0 0\nc {tmp_path}/x\\040y tmpfs rw 0 0\n"
    )
    assert file_system_type(tmp_path / "file", mounts) == "nfs4"
    assert file_system_type(tmp_path / "x y" / "file", mounts) == "tmpfs"
    assert file_system_type(Path("/"), mounts) == "ext4"
    assert file_system_type(Path("/"), tmp_path / "none") == ""


def test_no_run_is_no_problem():
    assert statuses() == ["note"]


def test_files_of_other_versions_and_broken_ones_are_problems(runtime_dir: Path):
    connection_file.write(make("good"))
    connection_file.write(make("new", protocol=99))
    (runtime_dir / "run-open.json").write_text("{}")
    (runtime_dir / "run-open.json").chmod(0o644)
    found: list[Connection] = []
    findings = list(check_connection_files(None, found))
    assert [finding.status for finding in findings] == ["problem", "problem", "ok"]
    assert "chmod 600" in findings[1].advice
    assert [one.run for one in found] == ["good"]


def test_a_named_file_is_checked_alone(tmp_path: Path):
    path = tmp_path / "one.json"
    assert statuses(path) == ["problem"]
    connection_file.write(make(), path)
    assert statuses(path) == ["ok"]
    connection_file.write(make(pid=2**22 + 1), path)
    [finding] = check_connection_files(path, [])
    assert "has exited" in finding.text
