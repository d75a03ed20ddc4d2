"""Files that only their owner can read, in directories that only their owner can change."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from revacnn_lightning.errors import ConnectionFileError

__all__ = ["check_not_writable_by_others", "is_own", "read", "write"]

MAX_BYTES = 2**16
HAS_OWNERS = os.name == "posix"


def is_own(path: Path) -> bool:
    """Return whether a file or directory exists and belongs to this user."""
    try:
        return not HAS_OWNERS or path.stat().st_uid == os.geteuid()
    except OSError:
        return False


def check_not_writable_by_others(directory: Path) -> None:
    """Check that no other user can replace files in a directory. Root may use any directory.

    Raises:
        ConnectionFileError: another user can replace files; the message says what to do.
        OSError: there is no such directory.
    """
    info = directory.stat()
    if not HAS_OWNERS:
        return
    if info.st_uid != os.geteuid() != 0:
        raise ConnectionFileError(
            f"{directory} belongs to another user, who could replace connection files; set "
            "REVACNN_RUNTIME_DIR to a directory of your own"
        )
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConnectionFileError(
            f"other users can write to {directory} and could replace connection files; "
            f"run: chmod 700 {directory}"
        )


def write(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, atomically.

    Raises:
        OSError: the file cannot be written.
    """
    # A new file with a random name and mode 600, which no link can stand in for.
    descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(partial, path)
    except OSError:
        os.unlink(partial)
        raise


def read(path: Path) -> bytes:
    """Read a small file that only its owner can read.

    Raises:
        OSError: the file cannot be read.
        ConnectionFileError: other users can read or replace it.
    """
    # Without waiting: a named pipe has nothing to read.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        info = os.fstat(descriptor)
        if HAS_OWNERS:
            _check_private(path, info)
        return file.read(MAX_BYTES) or b""


def _check_private(path: Path, info: os.stat_result) -> None:
    if info.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConnectionFileError(
            f"{path} is readable by other users, who could then steer the run; "
            f"run: chmod 600 {path}"
        )
    if info.st_uid != os.geteuid() != 0:
        raise ConnectionFileError(
            f"{path} belongs to another user; copy it to a file of your own if you trust it"
        )
