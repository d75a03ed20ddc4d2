"""The messages of a run: receive them, track its state, send requests. No method waits."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable, Iterator
from itertools import chain

from revacnn_lightning.client.batch import Batch
from revacnn_lightning.client.rank_health import RankHealth
from revacnn_lightning.client.unanswered_requests import UnansweredRequests
from revacnn_lightning.client.unread_messages import UnreadMessages
from revacnn_lightning.errors import ConnectionFileError, ProtocolError
from revacnn_lightning.protocol.access_messages import Access
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.messages import (
    MAX_HOST_LENGTH,
    Message,
    Refused,
    Reply,
    Request,
    Snapshot,
    Status,
    Structure,
)
from revacnn_lightning.protocol.rank_messages import TroubledRanks
from revacnn_lightning.protocol.requests import ControlRun, RequestBody
from revacnn_lightning.protocol.sockets import Requester, Subscriber
from revacnn_lightning.protocol.validation import validate_request

__all__ = ["NonblockingRunClient"]

SILENT_SECONDS = 5.0  # a run sends a heartbeat about once a second, between two batches
SILENT_BATCHES = 3.0  # the time of this many batches is no silence
STATE_REQUEST_SECONDS = 1.0  # minimum time between two requests for the current state
SEND_STATE = ControlRun("send_state")
MAX_STRUCTURES = 16  # a batch may arrive after the structure that an edit has made of its network


class NonblockingRunClient:
    """Receives the messages of a run and sends requests, without waiting.

    Attributes:
        connection: the run's address and key.
        structure: the last received structure of the network; None before the first one.
        status: the last received status; None before the first one.
        snapshot: the last received telemetry; None before the first one.
        access: the key of this client and what it may do, as the connection file and then the run
            say.
        last_message_time: when the last message arrived (`time.monotonic()`); before the first
            message, when this object was created.
        refusal: why the run refuses to send its state, for example because it uses another
            protocol version; "" if it does not.
        ranks: which rank of a training with several processes is in trouble.

    Raises:
        ConnectionFileError: the address or the key in ``connection`` is invalid.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.structure: Structure | None = None
        self.status: Status | None = None
        self.snapshot: Snapshot | None = None
        self.access = Access(connection.key_name, connection.role, connection.key_expires)
        self.last_message_time = time.monotonic()
        self.refusal = ""
        self.ranks = RankHealth()
        self._is_closed = False
        self._structures: dict[int, Structure] = {}  # by version, the last few
        telemetry_address, request_address = connection.addresses()
        server_key, keys = connection.server_key, connection.keys
        self._subscriber = Subscriber(telemetry_address, server_key, keys)
        try:
            self._requester = Requester(request_address, server_key, keys)
        except ConnectionFileError:
            self._subscriber.close()
            raise
        self._unread = UnreadMessages()  # received while waiting for something else
        self._unanswered = UnansweredRequests()
        self._connections = 0  # that the requests and the state were sent to
        self._state_request = ""  # id of the newest one
        self._request_state()

    # ------------------------------------------------------------------ messages

    def poll(self) -> list[Message]:
        """Return all messages that have arrived since the last call, oldest first."""
        return [*self._unread.take_all(), *self._receive()]

    def take(self, is_wanted: Callable[[Message], bool]) -> list[Message]:
        """Return the messages that are wanted, oldest first, and keep all others for `poll`."""
        messages = self.poll()
        self._unread.add(message for message in messages if not is_wanted(message))
        return [message for message in messages if is_wanted(message)]

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
            ProtocolError: the request is too large, the run is unreachable and too many requests
                are queued, or this client is closed.
        """
        self._check_open()
        host = socket.gethostname()[:MAX_HOST_LENGTH]
        request = Request(uuid.uuid4().hex, validate_request(body), version, dry_run, host=host)
        self._requester.send(request)
        if body != SEND_STATE:  # it has no reply
            self._unanswered.add(request)
        return request.id

    def file_descriptors(self) -> list[int]:
        """Return descriptors that become readable when `poll` may have something to return.

        They are edge-triggered, like ØMQ's: call `poll` until it returns nothing before waiting
        again. Wake up now and then in any case, because sending also resets the edge.
        """
        return [self._requester.file_descriptor(), self._subscriber.file_descriptor()]

    def close(self, linger: float = 0.0) -> None:
        """Detach. This has no effect on the training.

        Args:
            linger: seconds to wait at most until the requests are sent.
        """
        self._is_closed = True
        self._subscriber.close()
        self._requester.close(linger)

    def _check_open(self) -> None:
        if self._is_closed:
            raise ProtocolError(
                f"this client of run {self.connection.run} is closed; attach again: attach()"
            )

    # ------------------------------------------------------------------ state

    @property
    def can_steer(self) -> bool:
        """Whether the key of this client may edit and control the run, not only observe it."""
        return self.access.role != "observer"

    def is_key_refused(self) -> bool:
        """Return whether the run does not admit the key: it was revoked, has expired or is unknown.

        Nothing arrives any more; attach with another connection file.
        """
        return self._requester.is_key_refused() or self._subscriber.is_key_refused()

    @property
    def batch(self) -> Batch | None:
        """The statistics of the last received training batch; None before the first one."""
        return None if self.snapshot is None else self.batch_of(self.snapshot)

    def batch_of(self, snapshot: Snapshot) -> Batch | None:
        """Return the statistics of a snapshot by layer; None if its structure is unknown."""
        structure = self._structures.get(snapshot.version)
        if structure is None or structure.run != snapshot.run:
            return None
        return Batch(snapshot, structure) if Batch.matches_structure(snapshot, structure) else None

    def seconds_since_last_message(self) -> float:
        """Return the time since the last message of the run."""
        return time.monotonic() - self.last_message_time

    @property
    def interruption_count(self) -> int:
        """How often the connection was lost and is back; what was published meanwhile is lost."""
        return max(0, self._connections - 1)

    def seconds_unreachable(self) -> float:
        """Return for how long there has been no connection to the run; 0 if there is one."""
        return self._requester.seconds_disconnected()

    def is_silent(self) -> bool:
        """Return whether the last message is older than a training at work explains."""
        limit, snapshot = SILENT_SECONDS, self.snapshot
        if snapshot is not None and snapshot.batches_per_second > 0:
            limit = max(limit, SILENT_BATCHES / snapshot.batches_per_second)
        return self.seconds_since_last_message() > limit

    def has_ended(self) -> bool:
        """Return True if the run reported its end or its process on this machine has exited."""
        return self._has_reported_end() or self.connection.has_exited()

    def _has_reported_end(self) -> bool:
        return self.status is not None and self.status.state in ("finished", "failed")

    def _version(self) -> int | None:
        return None if self.structure is None else self.structure.version

    # ------------------------------------------------------------------ receiving

    def _receive(self) -> Iterator[Message]:
        """Yield the messages that have arrived; each one has updated the state before."""
        self._check_open()
        for message in chain(self._requester.poll(), self._subscriber.poll()):
            self._update_state(message)
            yield message
        if self._requester.connection_count != self._connections:
            self._catch_up()

    def _catch_up(self) -> None:
        """Request what was missed without a connection, and repeat what the run has missed."""
        is_first, self._connections = self._connections == 0, self._requester.connection_count
        if is_first:
            return
        self._subscriber.reconnect()
        for request in self._unanswered.requests_to_repeat():
            self._requester.send(request)
        self._request_state()

    def _update_state(self, message: Message) -> None:
        self.last_message_time = time.monotonic()
        if isinstance(message, Structure):
            self._update_structure(message)
        elif isinstance(message, Status):
            self.status, self.refusal = message, ""
        elif isinstance(message, Access):
            self.access = message
        elif isinstance(message, Reply):
            self._unanswered.remove(message.id)
            if isinstance(message, Refused) and message.id == self._state_request:
                self.refusal = message.reason
        elif isinstance(message, Snapshot):
            self.snapshot = message
            self._request_missing_structure(message.version)
        elif isinstance(message, TroubledRanks):
            self.ranks.receive(message)

    def _update_structure(self, structure: Structure) -> None:
        known = self.structure
        # Messages of the two sockets may overtake each other: ignore an older structure.
        if known is None or known.run != structure.run or known.version <= structure.version:
            if known is None or known.run != structure.run:
                self._structures.clear()
            self.structure = structure
            self._structures[structure.version] = structure
            for version in sorted(self._structures)[:-MAX_STRUCTURES]:
                del self._structures[version]

    def _request_missing_structure(self, version: int) -> None:
        """Request the state if the structure of this version was dropped on a slow connection."""
        known = self.structure is not None and self.structure.version == version
        if not known and time.monotonic() - self._state_request_time > STATE_REQUEST_SECONDS:
            self._request_state()

    def _request_state(self) -> None:
        self._state_request_time = time.monotonic()
        try:
            self._state_request = self.request(SEND_STATE)
        except ProtocolError:
            if not self.is_key_refused():  # else there is nobody to send to: see `check_admitted`
                raise
