"""Files that no other user can read or replace."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from revacnn_lightning.errors import ConnectionFileError
from revacnn_lightning.protocol import private_files

pytestmark = pytest.mark.skipif(os.name != "posix", reason="files have no owner and mode")


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path):
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_text("mine")
    path.symlink_to(victim)
    private_files.write(path, b"new")
    assert victim.read_text() == "mine"
    assert not path.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path: Path):
    """Its name was predictable, and it was opened without O_EXCL."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / f".file.{os.getpid()}").symlink_to(victim)
    private_files.write(tmp_path / "file", b"new")
    assert victim.read_text() == "mine"
    assert (tmp_path / "file").read_bytes() == b"new"


def test_nothing_is_left_if_a_file_cannot_be_replaced(tmp_path: Path):
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="file"):
        private_files.write(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path, mode: int):
    tmp_path.chmod(mode)
    with pytest.raises(ConnectionFileError, match=f"chmod 700 {tmp_path}"):
        private_files.check_not_writable_by_others(tmp_path)
    tmp_path.chmod(0o755)
    private_files.check_not_writable_by_others(tmp_path)


def test_files_and_directories_of_another_user_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "file"
    private_files.write(path, b"new")
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(ConnectionFileError, match="belongs to another user"):
        private_files.read(path)
    with pytest.raises(ConnectionFileError, match="REVACNN_RUNTIME_DIR"):
        private_files.check_not_writable_by_others(tmp_path)
    assert not private_files.is_own(tmp_path)


def test_a_named_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert private_files.read(tmp_path / "pipe") == b""
