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

__all__ = ["connection_with_key", "unused_key_name", "write_new_connection_file"]


def unused_key_name(role: str, names: Collection[str]) -> str:
    """Return a name for a key that no other key has: "observer", "observer 2", ..."""
    number, name = 1, role
    while name in names:
        number += 1
        name = f"{role} {number}"
    return name


def connection_with_key(
    owner: Connection,
    keys: Keys,
    name: str,
    role: Literal["operator", "observer"],
    valid_seconds: float | None,
) -> Connection:
    """Return a copy of the owner's connection with another key in the place of the owner's.

    Args:
        owner: the connection of the owner.
        keys: the other key pair.
        name: the name of the other key.
        role: what the other key permits.
        valid_seconds: for how long the other key is valid; None if it is until the run ends.
    """
    return replace(
        owner,
        public_key=keys.public,
        secret_key=keys.secret,
        key_name=name,
        role=role,
        key_expires=None if valid_seconds is None else time.time() + valid_seconds,
    )


def write_new_connection_file(connection: Connection, path: Path) -> Path:
    """Write a connection file that only this user can read; do not overwrite a file.

    Raises:
        ConnectionFileError: the file cannot be written, or exists already.
    """
    if path.exists():
        raise ConnectionFileError(f"{path} exists already; choose another --output")
    return connection_file.write(connection, path)
