"""Checks of the directory of connection files, and of the files in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from revacnn_lightning.client.doctor.finding import Finding
from revacnn_lightning.errors import ConnectionFileError
from revacnn_lightning.protocol import connection_file, private_files
from revacnn_lightning.protocol.connection_file import Connection, runtime_dir
from revacnn_lightning.protocol.local_sockets import HAS_UNIX_SOCKETS
from revacnn_lightning.protocol.run_discovery import find_unusable_connection_files, list_runs

__all__ = ["check_connection_files", "check_runtime_dir", "file_system_type"]

NETWORK_FILE_SYSTEMS = (
    "nfs",
    "cifs",
    "smb",
    "lustre",
    "gpfs",
    "beegfs",
    "fuse.sshfs",
    "ceph",
    "afs",
)
MOUNTS = Path("/proc/mounts")


def check_runtime_dir() -> Iterator[Finding]:
    """Yield findings about the directory in which runs of this machine write connection files."""
    directory = runtime_dir()
    name = "runtime directory"
    if not directory.is_dir():
        yield Finding(name, "ok", f"{directory} does not exist yet; the first run creates it")
        return
    try:
        private_files.check_not_writable_by_others(directory)
    except ConnectionFileError as error:
        text, _, advice = str(error).partition("; ")
        yield Finding(name, "problem", text, advice)
        return
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        text = f"{directory} cannot be read and written"
        yield Finding(name, "problem", text, f"chmod 700 {directory}")
        return
    kind = file_system_type(directory)
    text = f"{directory} belongs to you alone"
    if kind.startswith(NETWORK_FILE_SYSTEMS):
        advice = "set REVACNN_RUNTIME_DIR to a local directory if you see runs of other machines"
        yield Finding(name, "note", f"{text}; it is on {kind}, shared with other machines", advice)
    else:
        yield Finding(name, "ok", text)
    if not HAS_UNIX_SOCKETS:
        yield Finding("sockets", "note", "this system has no Unix sockets; runs use loopback TCP")


def file_system_type(path: Path, mounts: Path = MOUNTS) -> str:
    """Return the type of the file system that a path is on, such as ``nfs4``; "" if unknown."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:  # not Linux
        return ""
    target, found = path.resolve(), ("", "")
    for line in lines:
        _, point, kind, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if len(point) >= len(found[0]) and target.is_relative_to(point):
            found = point, kind
    return found[1]


def check_connection_files(
    connection_file: Path | None, runs_out: list[Connection]
) -> Iterator[Finding]:
    """Yield findings about one connection file, or about all in the runtime directory.

    Args:
        connection_file: the connection file; None checks all.
        runs_out: receives the connections of the runs that may be alive.
    """
    name = "connection file"
    if connection_file is not None:
        yield _check_file(name, connection_file, runs_out)
        return
    try:
        runs, unusable = list_runs(), find_unusable_connection_files()
    except (ConnectionFileError, OSError) as error:
        yield Finding(name, "problem", str(error))
        return
    for reason in unusable.values():
        text, _, advice = reason.partition("; ")
        yield Finding(name, "problem", text, advice)
    for run in runs:
        yield Finding(name, "ok", _describe(run))
    runs_out += runs
    if not runs and not unusable:
        advice = "start a training with Trainer(callbacks=[ReVACNN()]), or pass --connect FILE"
        yield Finding("runs", "note", "no training is running on this machine", advice)


def _check_file(name: str, file: Path, runs_out: list[Connection]) -> Finding:
    try:
        run = connection_file.read(file)
    except ConnectionFileError as error:
        text, _, advice = str(error).partition("; ")
        return Finding(name, "problem", text, advice)
    if run.has_exited():
        advice = "start it again: a run writes a new file, which replaces this one"
        return Finding(name, "problem", f"the process of {_describe(run)} has exited", advice)
    runs_out.append(run)
    return Finding(name, "ok", _describe(run))


def _describe(run: Connection) -> str:
    return f"run {run.run}, {run.title}, pid {run.pid} on {run.hostname or 'an unknown machine'}"
