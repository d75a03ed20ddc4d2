"""Checks whether a run can be reached and replies."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

from revacnn_lightning import __version__
from revacnn_lightning.client.doctor.finding import Finding
from revacnn_lightning.client.run_messages import NonblockingRunClient
from revacnn_lightning.errors import ConnectionFileError
from revacnn_lightning.protocol.connection_file import Connection

__all__ = ["check_run"]

REPLY_SECONDS = 5.0
CONNECT_SECONDS = 2.0
POLL_SECONDS = 0.01
MAX_SKEW_SECONDS = 2.0


def check_run(connection: Connection) -> Iterator[Finding]:
    """Yield findings about the sockets of a run, its replies, its release and its clock."""
    name = f"run {connection.run}"
    for address in connection.addresses():
        failure = _connect(address)
        if failure:
            yield Finding(name, "problem", f"{address}: {failure}", _how_to_reach(connection))
            return
    yield Finding(name, "ok", f"{' and '.join(connection.addresses())} accept connections")
    try:
        run = NonblockingRunClient(connection)
    except ConnectionFileError as error:
        yield Finding(name, "problem", str(error))
        return
    try:
        yield from _check_replies(name, run)
    finally:
        run.close()
    if connection.release not in ("", __version__):
        text = f"the run has release {connection.release}, this side {__version__}"
        yield Finding(name, "note", text, "this works; some features may be missing")


def _connect(address: str) -> str:
    """Return why nothing listens at an address; "" if something does."""
    kind, _, place = address.partition("://")
    try:
        if kind == "ipc":
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(CONNECT_SECONDS)
                probe.connect(place)
        else:
            host, _, port = place.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        return f"nothing listens there ({error})"
    return ""


def _how_to_reach(connection: Connection) -> str:
    if connection.is_local():
        return "the run is ending, or its sockets were removed: start the training again"
    return f"keep this command running here: {connection.ssh_command()}"


def _check_replies(name: str, run: NonblockingRunClient) -> Iterator[Finding]:
    _wait_for_reply(run)
    if run.is_key_refused():
        text = f"it does not admit the key {run.access.key!r}: revoked, expired or of another run"
        yield Finding(name, "problem", text, "ask the owner of the run for a new connection file")
    elif run.refusal:
        yield Finding(name, "problem", f"it refuses this side: {run.refusal}")
    elif run.status is not None:
        yield Finding(name, "ok", f"it replies: {run.status.state}, batch {run.status.step:,}")
        yield from _check_clock(name, time.time() - run.status.time)
    elif run.connection.is_suspended():
        pid = run.connection.pid
        text = f"its process {pid} is stopped: it replies to nobody until it continues"
        yield Finding(name, "problem", text, f"continue it with: kill -CONT {pid}")
    elif run.seconds_unreachable():
        text = "something listens, but does not prove that it has the key of the connection file"
        advice = "copy the connection file again: the run was restarted, or the port is another's"
        yield Finding(name, "problem", text, advice)
    else:
        text = f"connected, but the training has not replied within {REPLY_SECONDS:g} s"
        advice = "it may be in a long batch, compiling or stopped: inspect its own output"
        yield Finding(name, "problem", text, advice)


def _wait_for_reply(run: NonblockingRunClient) -> None:
    deadline = time.monotonic() + REPLY_SECONDS
    while run.status is None and not run.refusal and not run.is_key_refused():
        if time.monotonic() > deadline:
            return
        run.poll()
        time.sleep(POLL_SECONDS)


def _check_clock(name: str, skew: float) -> Iterator[Finding]:
    """Yield a finding if the clocks of both machines differ.

    Args:
        skew: seconds by which this clock is ahead, with the time that the message has taken.
    """
    if abs(skew) > MAX_SKEW_SECONDS:
        direction = "ahead of" if skew > 0 else "behind"
        text = f"the clock of this machine is {abs(skew):.0f} s {direction} that of the run"
        yield Finding(name, "note", text, "times on the page are off by as much; use NTP on both")
