"""Requests to a run that wait for its reply: edits and commands."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from revacnn_lightning.client.key_checks import check_admitted, check_permitted
from revacnn_lightning.client.run_messages import NonblockingRunClient
from revacnn_lightning.errors import EditRefusedError, RequestTimeoutError, RunEndedError
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.messages import (
    Applied,
    Done,
    History,
    Message,
    Planned,
    PlanSummary,
    Refused,
    Reply,
    Structure,
)
from revacnn_lightning.protocol.rate_limit import TokenBucket
from revacnn_lightning.protocol.requests import (
    Command,
    Edit,
    InspectFilter,
    RequestBody,
    SendHistory,
    TryEdits,
)

__all__ = ["POLL_SECONDS", "RunRequests"]

POLL_SECONDS = 0.01
ENDED_GRACE_SECONDS = 0.5  # the last reply may arrive after the message that the run has ended
UNREACHABLE_SECONDS = 10.0  # without a connection, before waiting for a reply is given up
# Fewer requests than the run refuses, so that a loop of plans is slowed instead of refused.
REQUEST_RATE, REQUEST_BURST = 40.0, 64.0

Result = TypeVar("Result")


class RunRequests(NonblockingRunClient):
    """Requests that wait for the reply of the run."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._request_budget = TokenBucket(REQUEST_RATE, REQUEST_BURST)

    def apply(self, edit: Edit, *, version: int | None = None, timeout: float = 60.0) -> Applied:
        """Apply an edit, and wait until `structure` is the edited one.

        Examples:
            >>> reply = run.apply(AddFilters("conv1", 2))
            >>> reply.plan.parameters_after - reply.plan.parameters_before
            74
            >>> run.undo().version == run.structure.version
            True

        Args:
            edit: what to change.
            version: the structure version that the edit's filter indices refer to, such as
                `Batch.version`. If the network has changed since, the edit is refused. None: the
                current `structure`.
            timeout: seconds to wait. Edits are applied between two training batches.

        Raises:
            EditRefusedError: the edit cannot be applied; the message says why.
            ObserverKeyError: the key of this client only observes the run.
            KeyRefusedError: the run does not admit the key of this client.
            RunEndedError: the run has ended.
            RequestTimeoutError: no reply in time. The edit may still be applied later.
        """
        deadline = time.monotonic() + timeout
        reply = self._execute(edit, timeout, version=version)
        assert isinstance(reply, Applied)
        self._wait_for_structure(reply.version, deadline)
        return reply

    def plan(self, edit: Edit, *, version: int | None = None, timeout: float = 60.0) -> PlanSummary:
        """Return what `apply` would do, without doing it. Raises as `apply` does.

        Examples:
            >>> run.plan(AddFilters("conv1")).output_effect
            'output unchanged'
        """
        reply = self._execute(edit, timeout, version=version, dry_run=True)
        assert isinstance(reply, Planned)
        return reply.plan

    def command(self, command: Command, *, timeout: float = 60.0) -> str:
        """Execute a command (pause, save a checkpoint, set a learning rate, ...).

        Waits until `structure` is what the command has made of the network, as keeping a trial
        does. Returns what was done, in words. Raises as `apply` does.
        """
        deadline = time.monotonic() + timeout
        reply = self._execute(command, timeout)
        assert isinstance(reply, Done)
        self._wait_for_structure(reply.version, deadline)
        return reply.detail

    def history(self, *, timeout: float = 60.0) -> History:
        """Return the history of the run since its first batch. Raises as `apply` does."""
        reply = self._execute(SendHistory(), timeout)
        assert isinstance(reply, History)
        return reply

    # ------------------------------------------------------------------ waiting

    def _execute(
        self,
        body: RequestBody,
        timeout: float,
        *,
        version: int | None = None,
        dry_run: bool = False,
    ) -> Reply:
        """Send a request and wait for its reply; raises as `apply` does."""
        request_id = self._send_permitted(body, version=version, dry_run=dry_run)
        return self._wait_for_reply(request_id, timeout)

    def _send_permitted(
        self, body: RequestBody, *, version: int | None = None, dry_run: bool = False
    ) -> str:
        """Send a request, and return its id; raises as `apply` does."""
        self._unread.add(self._receive())
        self._check_not_ended()
        check_permitted(self, body, dry_run=dry_run)
        while not self._request_budget.try_take():
            time.sleep(POLL_SECONDS)
        if version is None and isinstance(body, Edit | InspectFilter | TryEdits):
            version = self._version()
        return self.request(body, version=version, dry_run=dry_run)

    def _wait_for_reply(self, request_id: str, timeout: float) -> Reply:
        def is_reply(message: Message) -> bool:
            return isinstance(message, Reply) and message.id == request_id

        try:
            reply = self._wait_for_message(is_reply, timeout, self._why_no_reply)
        finally:
            self._unanswered.remove(request_id)
        assert isinstance(reply, Reply)
        if isinstance(reply, Refused):
            raise EditRefusedError(reply.reason)
        return reply

    def _request_and_wait(
        self, body: Command, is_wanted: Callable[[Message], bool], what: str, timeout: float
    ) -> Message:
        """Send a request, and wait for the telemetry that it selects."""
        deadline = time.monotonic() + timeout
        self.take(is_wanted)  # an earlier one is not the answer
        self._execute(body, timeout)
        return self._wait_for_message(
            is_wanted,
            deadline - time.monotonic(),
            lambda: (
                f"run {self.connection.run} sent no {what} within {timeout:g} s; it may be "
                "validating, paused or gone: check its status and try again"
            ),
        )

    def _wait_for_structure(self, version: int, deadline: float) -> None:
        """Wait for the structure of an edit. It may arrive after the reply, on the other socket."""
        while (self._version() or 0) < version and time.monotonic() < deadline:
            self._unread.add(self._receive())
            self._request_missing_structure(version)
            time.sleep(POLL_SECONDS)

    def _network(self, timeout: float) -> Structure:
        """Return the structure; wait for the first one."""

        def find() -> Structure | None:
            self._unread.add(self._receive())
            return self.structure

        return self._wait_until(find, timeout, self._why_no_reply)

    def _wait_for_message(
        self,
        is_wanted: Callable[[Message], bool],
        timeout: float,
        why: Callable[[], str],
    ) -> Message:
        def find() -> list[Message] | None:
            return self.take(is_wanted) or None

        return self._wait_until(find, timeout, why)[-1]

    def _wait_until(
        self, find: Callable[[], Result | None], timeout: float, why: Callable[[], str]
    ) -> Result:
        """Return the first result of ``find`` that is not None; ``find`` receives messages.

        Raises:
            RunEndedError: the run has ended.
            KeyRefusedError: the run does not admit the key of this client.
            RequestTimeoutError: the run is unreachable or the time is over; ``why`` describes it.
        """
        deadline, is_ending = time.monotonic() + timeout, False
        while True:
            result = find()
            if result is not None:
                return result
            if self.has_ended() and not is_ending:
                is_ending = True
                deadline = min(deadline, time.monotonic() + ENDED_GRACE_SECONDS)
            check_admitted(self)
            if time.monotonic() >= deadline or self._is_unreachable():
                break
            time.sleep(POLL_SECONDS)
        self._check_not_ended()
        raise RequestTimeoutError(why())

    def check_reachable(self) -> None:
        """Check that the run has been reachable within the last `UNREACHABLE_SECONDS`.

        Raises:
            KeyRefusedError: the run does not admit the key of this client.
            RequestTimeoutError: it has not.
        """
        check_admitted(self)
        if self._is_unreachable():
            raise RequestTimeoutError(self._why_unreachable())

    def _is_unreachable(self) -> bool:
        return self.seconds_unreachable() > UNREACHABLE_SECONDS

    def _check_not_ended(self) -> None:
        """Check that the run can still reply.

        Raises:
            RunEndedError: it cannot.
        """
        if not self.has_ended():
            return
        status = self.status
        if status is None or status.state not in ("finished", "failed"):
            how = "its process exited unexpectedly"
        else:
            how = f"{status.state} before batch {status.step}"
            how += f": {status.detail}" if status.detail else ""
        raise RunEndedError(f"run {self.connection.run} has ended ({how}); it takes no requests")

    def _why_unreachable(self) -> str:
        seconds = self.seconds_unreachable()
        return (
            f"run {self.connection.run} has not been reachable for {seconds:.0f} s: it has ended, "
            "or the network or the forwarded port is down"
        )

    def _why_no_reply(self) -> str:
        if self._is_unreachable():
            return self._why_unreachable()
        return (
            f"run {self.connection.run} did not reply in time (last message "
            f"{self.seconds_since_last_message():.0f} s ago); it may be validating or paused, and "
            "may still carry out the request: check its status before repeating it"
        )
