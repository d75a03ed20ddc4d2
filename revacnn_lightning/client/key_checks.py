"""What the key of a client permits, checked before a request is sent."""

from __future__ import annotations

from revacnn_lightning.client.run_messages import NonblockingRunClient
from revacnn_lightning.errors import KeyRefusedError, ObserverKeyError
from revacnn_lightning.protocol.requests import RequestBody, is_steering

__all__ = ["check_admitted", "check_permitted"]


def check_permitted(run: NonblockingRunClient, body: RequestBody, *, dry_run: bool) -> None:
    """Check that the client's key permits a request.

    Raises:
        ObserverKeyError: the key only observes, and the request would steer the run.
    """
    if is_steering(body, dry_run=dry_run) and not run.can_steer:
        raise ObserverKeyError(
            f"the key {run.access.key!r} only observes run {run.connection.run}; ask its owner "
            "for the file that revacnn share --operator writes"
        )


def check_admitted(run: NonblockingRunClient) -> None:
    """Check that the run admits the client's key.

    Raises:
        KeyRefusedError: the run has refused the key.
    """
    if run.is_key_refused():
        raise KeyRefusedError(
            f"run {run.connection.run} does not admit the key {run.access.key!r}: it was revoked, "
            "has expired or belongs to another run; ask the owner of the run for a new connection "
            "file"
        )
