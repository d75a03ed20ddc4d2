"""Unix sockets that other users of the machine cannot reach."""

from __future__ import annotations

import socket
import stat
import tempfile
from pathlib import Path

import pytest

from revacnn_lightning.protocol import local_sockets
from revacnn_lightning.protocol.local_sockets import SocketDirectory

pytestmark = pytest.mark.skipif(
    not local_sockets.HAS_UNIX_SOCKETS, reason="this system has no Unix sockets"
)


def test_only_the_owner_can_enter_the_directory():
    directory = SocketDirectory()
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    directory.remove()
    assert not directory.path.exists()


def test_a_long_temporary_directory_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    directory = SocketDirectory()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(directory.endpoints[0].removeprefix("ipc://"))
    directory.remove()


def test_endpoints_exist_while_both_sockets_do(tmp_path: Path):
    directory = SocketDirectory()
    assert not local_sockets.do_sockets_exist(directory.endpoints)
    for endpoint in directory.endpoints:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(endpoint.removeprefix("ipc://"))
    assert local_sockets.do_sockets_exist(directory.endpoints)
    directory.remove()
    assert not local_sockets.do_sockets_exist(("tcp://127.0.0.1:1",))
