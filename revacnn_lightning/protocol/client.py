"""Monitor and steer a run from a notebook, a script or the viewer.

::

    from revacnn_lightning import RemoveFilters, attach

    with attach() as run:                         # the newest run on this machine
        print([layer.name for layer in run.structure.layers])
        run.apply(RemoveFilters("conv2", [36]))   # returns after the next batch boundary
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from types import TracebackType

from revacnn_lightning.diagnostics.dead_filters import DeadFilters
from revacnn_lightning.errors import (
    ConnectionFileError,
    EditRefusedError,
    RequestTimeoutError,
    RunEndedError,
)
from revacnn_lightning.protocol import connection as connections
from revacnn_lightning.protocol.connection import Connection
from revacnn_lightning.protocol.filter_columns import source_columns
from revacnn_lightning.protocol.messages import (
    Applied,
    Done,
    FilterInspection,
    History,
    Message,
    Planned,
    PlanSummary,
    Refused,
    Reply,
    Request,
    Snapshot,
    Status,
    Structure,
)
from revacnn_lightning.protocol.rate_limit import TokenBucket
from revacnn_lightning.protocol.requests import (
    Command,
    ControlRun,
    Edit,
    InspectFilter,
    RequestBody,
    SendHistory,
)
from revacnn_lightning.protocol.run_discovery import find_newest
from revacnn_lightning.protocol.sockets import Requester, Subscriber
from revacnn_lightning.protocol.validation import validate_request

__all__ = ["Run", "attach"]

POLL_SECONDS = 0.01
STATE_REQUEST_SECONDS = 1.0  # minimum time between two requests for the current state
ENDED_GRACE_SECONDS = 0.5  # the last reply may arrive after the message that the run has ended
UNREACHABLE_SECONDS = 10.0  # without a connection, before waiting for a reply is given up
MAX_UNREAD = 1024  # telemetry messages kept for `poll`; older ones are dropped
# Fewer requests than the run refuses, so that a loop of plans is slowed instead of refused.
REQUEST_RATE, REQUEST_BURST = 40.0, 64.0


class Run:
    """A training run, seen from another process.

    `apply`, `plan`, `command`, `train`, `history` and `inspect` wait; all other methods return
    immediately.

    Attributes:
        connection: the run's address and key.
        structure: the last received structure of the network; None before the first one.
        status: the last received status; None before the first one.
        snapshot: the last received telemetry; None before the first one.
        last_message_time: when the last message arrived (`time.monotonic()`); before the first
            message, when this object was created.

    Raises:
        ConnectionFileError: the address or the key in ``connection`` is invalid.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.structure: Structure | None = None
        self.status: Status | None = None
        self.snapshot: Snapshot | None = None
        self.last_message_time = time.monotonic()
        telemetry_address, request_address = connection.addresses()
        self._subscriber = Subscriber(telemetry_address, connection.server_key)
        try:
            self._requester = Requester(request_address, connection.server_key)
        except ConnectionFileError:
            self._subscriber.close()
            raise
        self._unread: list[Message] = []  # received while waiting for something else
        self._dead_filters = DeadFilters()
        self._requests = TokenBucket(REQUEST_RATE, REQUEST_BURST)
        self._request_state()

    def poll(self) -> list[Message]:
        """Return all messages that have arrived since the last call, oldest first."""
        messages, self._unread = self._unread, []
        return messages + self._receive()

    def request(
        self, body: RequestBody, *, version: int | None = None, dry_run: bool = False
    ) -> str:
        """Send a request and return its id; `poll` returns the reply, which carries the same id.

        Args:
            body: an edit or a command.
            version: the structure version for which the indices in ``body`` are valid; None: the
                current one, whichever that is.
            dry_run: plan the edit without applying it.

        Raises:
            EditRefusedError: ``body`` has an invalid field.
            ProtocolError: the run is unreachable and too many requests are queued.
        """
        request = Request(uuid.uuid4().hex, validate_request(body), version, dry_run)
        self._requester.send(request)
        return request.id

    def apply(self, edit: Edit, *, timeout: float = 60.0) -> Applied:
        """Apply an edit, and wait until `structure` is the edited one.

        Args:
            edit: its filter indices refer to the current `structure`.
            timeout: seconds to wait. Edits are applied between two training batches.

        Raises:
            EditRefusedError: the edit cannot be applied; the message says why.
            RunEndedError: the run has ended.
            RequestTimeoutError: no reply in time. The edit may still be applied later.
        """
        deadline = time.monotonic() + timeout
        reply = self._execute(edit, timeout, version=self._version())
        assert isinstance(reply, Applied)
        self._wait_for_structure(reply.version, deadline)
        return reply

    def plan(self, edit: Edit, *, timeout: float = 60.0) -> PlanSummary:
        """Return what `apply` would do, without doing it. Raises as `apply` does."""
        reply = self._execute(edit, timeout, version=self._version(), dry_run=True)
        assert isinstance(reply, Planned)
        return reply.plan

    def command(self, command: Command, *, timeout: float = 60.0) -> str:
        """Execute a command (pause, save a checkpoint, set a learning rate, ...).

        Returns what was done, in words. Raises as `apply` does.
        """
        reply = self._execute(command, timeout)
        assert isinstance(reply, Done)
        return reply.detail

    def history(self, *, timeout: float = 60.0) -> History:
        """Return the history of the run since its first batch. Raises as `apply` does."""
        reply = self._execute(SendHistory(), timeout)
        assert isinstance(reply, History)
        return reply

    def train(self, batches: int | None = None, *, timeout: float = 3600.0) -> int:
        """Train this many batches, or to the end of the epoch, and wait until the run has paused.

        A paused run continues, and a running one pauses afterwards. ``ControlRun("resume")`` lets
        it train on.

        Args:
            batches: number of training batches; None: to the end of the current epoch, or through
                the next one if the run is paused between two epochs.
            timeout: seconds to wait.

        Returns:
            The training batch before which the run has paused, counted from the start of fit.

        Raises as `apply` does: `RunEndedError` also if training ends before it would pause, and
        `RequestTimeoutError` if it has not paused in time. It still pauses later.
        """
        deadline = time.monotonic() + timeout
        command = (
            ControlRun("finish_epoch") if batches is None else ControlRun("step", batches=batches)
        )
        reply = self._execute(command, timeout)
        assert isinstance(reply, Done)
        return self._wait_for_pause(reply.step, deadline, timeout)

    def inspect(
        self, layer: str, filter: int, *, image_index: int | None = None, timeout: float = 60.0
    ) -> FilterInspection:
        """Return what activates a filter: its top training images and an attribution.

        The run collects top images for about ten seconds after each call, so a later call returns
        more of them.

        Args:
            layer: name of a convolution.
            filter: index of one of its filters in the current `structure`.
            image_index: index into the validation data of the image to attribute the filter's
                response to; None: the first image of the batch.
            timeout: seconds to wait. A running training replies within a batch or two seconds.

        Raises as `apply` does.
        """
        deadline = time.monotonic() + timeout
        body = InspectFilter(layer, filter, image_index)
        self._execute(body, timeout, version=self._version())
        while time.monotonic() < deadline:
            inspection = None
            for message in self._receive():
                if isinstance(message, FilterInspection) and body == InspectFilter(
                    message.layer, message.filter, message.image_index
                ):
                    inspection = message
                else:
                    self._keep_unread([message])
            if inspection is not None:
                return inspection
            self._check_not_ended()
            time.sleep(POLL_SECONDS)
        raise RequestTimeoutError(
            f"run {self.connection.run} sent no inspection of {layer} within {timeout:g} s; it may "
            "be validating, paused or gone: check its status and try again"
        )

    def dead_filters(self, layer: str) -> list[int]:
        """Return the indices of a layer's dead filters in the current `structure`.

        A filter is dead if its activation was exactly zero in all batches that this object has
        received of the last 20. `poll` receives them.

        Raises:
            ValueError: the network has no such layer.
        """
        first, mask = 0, self._dead_filters.mask()
        for one in self.structure.layers if self.structure is not None else ():
            last = first + len(one.filter_ids)
            if one.name == layer:
                return [i for i, dead in enumerate(mask[first:last]) if dead and one.observed]
            first = last
        raise ValueError(f"the network has no convolution {layer}: see Run.structure")

    def file_descriptors(self) -> list[int]:
        """Return descriptors that become readable when `poll` may have something to return.

        They are edge-triggered, like ØMQ's: call `poll` until it returns nothing before waiting
        again. Wake up now and then in any case, because sending also resets the edge.
        """
        return [self._requester.file_descriptor(), self._subscriber.file_descriptor()]

    def seconds_since_last_message(self) -> float:
        """Return the time since the last message of the run."""
        return time.monotonic() - self.last_message_time

    def has_ended(self) -> bool:
        """Return True if the run reported its end or its process on this machine has exited."""
        ended = self.status is not None and self.status.state in ("finished", "failed")
        return ended or self.connection.has_exited()

    def close(self) -> None:
        """Detach. This has no effect on the training."""
        self._subscriber.close()
        self._requester.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _version(self) -> int | None:
        return None if self.structure is None else self.structure.version

    def _receive(self) -> list[Message]:
        messages = [*self._requester.poll(), *self._subscriber.poll()]
        for message in messages:
            self.last_message_time = time.monotonic()
            if isinstance(message, Structure):
                self._update_structure(message)
            elif isinstance(message, Status):
                self.status = message
            elif isinstance(message, Snapshot):
                self.snapshot = message
                self._count_silent_batches(message)
                self._request_missing_structure(message.version)
        return messages

    def _keep_unread(self, messages: list[Message]) -> None:
        """Keep messages for `poll`, only the newest ones."""
        self._unread += messages
        del self._unread[:-MAX_UNREAD]

    def _request_missing_structure(self, version: int) -> None:
        """Request the state if the structure of this version was dropped on a slow connection."""
        known = self.structure is not None and self.structure.version == version
        if not known and time.monotonic() - self._state_request_time > STATE_REQUEST_SECONDS:
            self._request_state()

    def _request_state(self) -> None:
        self._state_request_time = time.monotonic()
        self.request(ControlRun("send_state"))

    def _update_structure(self, structure: Structure) -> None:
        known = self.structure
        # Messages of the two sockets may overtake each other: ignore an older structure.
        if known is None or known.run != structure.run or known.version <= structure.version:
            before = known if known is not None and known.run == structure.run else None
            if before is None or before.version != structure.version:
                self._dead_filters.remap(source_columns(before, structure))
            self.structure = structure

    def _count_silent_batches(self, snapshot: Snapshot) -> None:
        if "activation" in snapshot.statistics and snapshot.version == self._version():
            activation = snapshot.values[snapshot.statistics.index("activation")]
            if len(activation) == self._dead_filters.n_filters:
                self._dead_filters.add(snapshot.step, activation)

    def _wait_for_structure(self, version: int, deadline: float) -> None:
        """Wait for the structure of an edit. It may arrive after the reply, on the other socket."""
        while (self._version() or 0) < version and time.monotonic() < deadline:
            self._keep_unread(self._receive())
            self._request_missing_structure(version)
            time.sleep(POLL_SECONDS)

    def _execute(
        self,
        body: RequestBody,
        timeout: float,
        *,
        version: int | None = None,
        dry_run: bool = False,
    ) -> Applied | Planned | Done | History:
        """Send a request and wait for its reply; raises as `apply` does."""
        self._keep_unread(self._receive())
        self._check_not_ended()
        while not self._requests.take():
            time.sleep(POLL_SECONDS)
        return self._wait_for_reply(self.request(body, version=version, dry_run=dry_run), timeout)

    def _wait_for_pause(self, step: int, deadline: float, timeout: float) -> int:
        """Wait until the run has paused before a batch later than ``step``; return which one.

        An earlier status may arrive after the reply, on the other socket.
        """
        while time.monotonic() < deadline:
            self._keep_unread(self._receive())
            status = self.status
            if status is not None and status.state == "paused" and status.step > step:
                return status.step
            self._check_not_ended()
            time.sleep(POLL_SECONDS)
        raise RequestTimeoutError(
            f"run {self.connection.run} has not paused within {timeout:g} s; it pauses when it has "
            'trained the requested batches: wait for the state "paused" in its status'
        )

    def _wait_for_reply(
        self, request_id: str, timeout: float
    ) -> Applied | Planned | Done | History:
        deadline, is_ending = time.monotonic() + timeout, False
        while time.monotonic() < deadline:
            reply = None
            for message in self._receive():
                if isinstance(message, Reply) and message.id == request_id:
                    reply = message
                else:
                    self._keep_unread([message])
            if isinstance(reply, Refused):
                raise EditRefusedError(reply.reason)
            if reply is not None:
                return reply
            if self.has_ended() and not is_ending:
                is_ending = True
                deadline = min(deadline, time.monotonic() + ENDED_GRACE_SECONDS)
            if self._requester.seconds_disconnected() > UNREACHABLE_SECONDS:
                break
            time.sleep(POLL_SECONDS)
        self._check_not_ended()
        raise RequestTimeoutError(self._why_no_reply(timeout))

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

    def _why_no_reply(self, timeout: float) -> str:
        run = self.connection.run
        seconds = self._requester.seconds_disconnected()
        if seconds > UNREACHABLE_SECONDS:
            return (
                f"run {run} has not been reachable for {seconds:.0f} s: it has ended, or the "
                "network or the forwarded port is down"
            )
        return (
            f"run {run} did not reply within {timeout:g} s (last message "
            f"{self.seconds_since_last_message():.0f} s ago); it may be validating or paused, and "
            "may still carry out the request: check its status before repeating it"
        )


def attach(connection: Connection | str | Path | None = None, *, timeout: float = 30.0) -> Run:
    """Attach to a run and wait for its structure.

    Args:
        connection: a connection or the path of a connection file; None: the newest run on this
            machine.
        timeout: seconds to wait for the first reply.

    Raises:
        ConnectionFileError: there is no such run, or its connection file is unusable.
        RunEndedError: the process of the run has exited.
        RequestTimeoutError: the run did not reply.
    """
    if connection is None:
        connection = find_newest()
    elif not isinstance(connection, Connection):
        connection = connections.read(connection)
    run = Run(connection)
    deadline = time.monotonic() + timeout
    while run.structure is None:
        if run.has_ended():
            run.close()
            raise RunEndedError(f"run {connection.run} has ended; it takes no requests")
        if time.monotonic() > deadline:
            run.close()
            raise RequestTimeoutError(
                f"the run at {connection.addresses()[1]} did not reply within {timeout:g} s; if it "
                f"runs on another machine, keep this command running: {connection.ssh_command()}"
            )
        run._keep_unread(run._receive())
        time.sleep(POLL_SECONDS)
    return run
