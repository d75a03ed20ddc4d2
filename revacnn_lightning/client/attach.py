"""Attach to a run."""

from __future__ import annotations

import time
from pathlib import Path

from revacnn_lightning.client.key_checks import check_admitted
from revacnn_lightning.client.run import Run
from revacnn_lightning.client.run_requests import POLL_SECONDS
from revacnn_lightning.errors import (
    ConnectionFileError,
    ProtocolError,
    RequestTimeoutError,
    RunEndedError,
)
from revacnn_lightning.protocol import connection_file
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.lineage import find_resuming_run
from revacnn_lightning.protocol.run_discovery import find_newest_run, is_reachable, list_runs

__all__ = ["attach"]

SEARCH_SECONDS = 0.2  # between two searches for a run that has not started yet


def attach(
    connection: Connection | str | Path | None = None,
    *,
    resumes: Run | None = None,
    timeout: float = 30.0,
    wait: float = 0.0,
) -> Run:
    """Attach to a run and wait for its structure and its status.

    Examples:
        >>> with attach() as run:
        ...     print([(layer.name, layer.out_channels) for layer in run.structure.layers])
        [('conv1', 4), ('conv2', 3)]

        The next job continues a run that was killed:

        >>> run = attach(resumes=run, wait=3600)  # doctest: +SKIP

    Args:
        connection: a connection or the path of a connection file; None: the newest run on this
            machine.
        resumes: attach to the run that resumes this one from a checkpoint. Its history contains
            that of this run, up to the checkpoint.
        timeout: seconds to wait for the first reply.
        wait: seconds to wait for the run to start, if there is none.

    Raises:
        ConnectionFileError: there is no such run, or its connection file is unusable.
        KeyRefusedError: the run does not admit the key in the file.
        RunEndedError: the process of the run has exited.
        ProtocolError: the run refuses this client, for example of another protocol version.
        RequestTimeoutError: the run did not reply.
    """
    run = Run(_find(connection, resumes, time.monotonic() + wait))
    try:
        _wait_for_state(run, timeout)
    except BaseException:  # also an interrupt
        run.close()
        raise
    return run


def _find(
    connection: Connection | str | Path | None, resumes: Run | None, deadline: float
) -> Connection:
    while True:
        try:
            if resumes is not None:
                return _find_resuming_run(resumes, connection)
            return find_newest_run() if connection is None else _read(connection)
        except ConnectionFileError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(SEARCH_SECONDS)


def _read(connection: Connection | str | Path) -> Connection:
    return connection if isinstance(connection, Connection) else connection_file.read(connection)


def _find_resuming_run(earlier: Run, connection: Connection | str | Path | None) -> Connection:
    """Return the run that resumes an earlier one.

    Raises:
        ConnectionFileError: there is none (yet).
    """
    found = find_resuming_run(
        earlier.connection, list_runs() if connection is None else [_read(connection)]
    )
    if found is None:
        raise ConnectionFileError(
            f"no run resumes run {earlier.connection.run} from a checkpoint; wait for it with "
            "attach(resumes=..., wait=...)"
        )
    return found


def _wait_for_state(run: Run, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    connection = run.connection
    while run.structure is None or run.status is None:
        if run.has_ended():
            raise RunEndedError(f"run {connection.run} has ended; it takes no requests")
        check_admitted(run)
        if run.refusal:
            raise ProtocolError(f"run {connection.run} refuses this client: {run.refusal}")
        if time.monotonic() > deadline:
            raise RequestTimeoutError(
                f"the run at {connection.addresses()[1]} did not reply within {timeout:g} s"
                + _explain_silence(connection)
            )
        run.take(lambda _: False)
        time.sleep(POLL_SECONDS)


def _explain_silence(connection: Connection) -> str:
    """Return why a run may not reply, and what to do about it."""
    if not connection.is_local():
        return f"; keep this command running here: {connection.ssh_command()}"
    pid = connection.pid
    if connection.is_suspended():
        return f": its process {pid} is stopped; continue it with kill -CONT {pid}"
    if not is_reachable(connection):
        return f": its process {pid} exists, but nobody listens at its sockets; start it again"
    return (
        f": its process {pid} may be in a long batch or compiling; inspect its own output, or wait "
        "longer with attach(timeout=...)"
    )
