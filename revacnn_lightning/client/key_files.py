"""Connection files to hand out: the address of a run, with a key of its own for someone else."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from revacnn_lightning.errors import ConnectionFileError
from revacnn_lightning.protocol import connection_file
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.sockets import Keys

__all__ = ["connection_of", "free_name", "write_new"]


def free_name(role: str, names: Collection[str]) -> str:
    """Return a name for a key that no other key has: "observer", "observer 2", ..."""
    number, name = 1, role
    while name in names:
        number += 1
        name = f"{role} {number}"
    return name


def connection_of(
    owner: Connection,
    keys: Keys,
    name: str,
    role: Literal["operator", "observer"],
    seconds: float | None,
) -> Connection:
    """Return the connection of a run with another key, given that of its owner."""
    return replace(
        owner,
        public_key=keys.public,
        secret_key=keys.secret,
        key_name=name,
        role=role,
        key_expires=None if seconds is None else time.time() + seconds,
    )


def write_new(connection: Connection, path: Path) -> Path:
    """Write a connection file that only this user can read.

    Raises:
        ConnectionFileError: it cannot be written, or there is such a file already.
    """
    if path.exists():
        raise ConnectionFileError(f"{path} exists already; choose another --output")
    return connection_file.write(connection, path)
