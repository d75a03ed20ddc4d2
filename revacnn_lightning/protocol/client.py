"""Follow and steer a training from a notebook, a script, or the viewer.

::

    from revacnn_lightning import attach

    with attach() as run:                       # the newest training on this machine
        print([layer.name for layer in run.structure.layers])
        run.ask(RemoveFilters("conv2", [36]))   # waits for the next batch boundary
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from types import TracebackType

from revacnn_lightning.errors import ConnectionFileError, EditRefusedError, RequestTimeoutError
from revacnn_lightning.protocol import connection as connections
from revacnn_lightning.protocol.connection import Connection
from revacnn_lightning.protocol.messages import (
    Applied,
    Done,
    FilterInspection,
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
from revacnn_lightning.protocol.requests import (
    Command,
    ControlRun,
    Edit,
    InspectFilter,
    RequestBody,
)
from revacnn_lightning.protocol.sockets import Requester, Subscriber

__all__ = ["Run", "attach"]

POLL_SECONDS = 0.01
HELLO_SECONDS = 1.0  # at least this long between two greetings


class Run:
    """A training seen from outside. Nothing here waits, except `ask`, `plan` and `attach`.

    Attributes:
        structure: the network as last heard of; None until the training has answered.
        status: what the training was last heard to do.
        snapshot: the newest telemetry.
        heard: time of the last message (`time.monotonic()`), of attaching before the first.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.structure: Structure | None = None
        self.status: Status | None = None
        self.snapshot: Snapshot | None = None
        self.heard = time.monotonic()
        self._subscriber = Subscriber(connection.telemetry, connection.server_key)
        try:
            self._requester = Requester(connection.requests, connection.server_key)
        except ConnectionFileError:
            self._subscriber.close()
            raise
        self._put_aside: list[Message] = []  # telemetry that `ask` met while it waited
        self._greet()

    def poll(self) -> list[Message]:
        """All messages that have arrived since the last call, oldest first. Never waits."""
        messages, self._put_aside = self._put_aside, []
        return messages + self._receive()

    def request(
        self, body: RequestBody, *, version: int | None = None, dry_run: bool = False
    ) -> str:
        """Send a request and return its id at once; the reply comes out of `poll`.

        Args:
            body: what is asked for.
            version: the structure version its indices are valid for; None: whatever is current.
            dry_run: only ask what would be done.
        """
        request = Request(id=uuid.uuid4().hex, body=body, version=version, dry_run=dry_run)
        self._requester.send(request)
        return request.id

    def ask(self, edit: Edit, *, timeout: float = 60.0) -> Applied:
        """Have the network changed, and wait until it is; then `structure` is the changed one.

        Args:
            edit: what to do. Its filter indices are taken to mean the structure as last heard of.
            timeout: seconds to wait; an edit is carried out between two training batches.

        Raises:
            Refused: the training refused, and says why.
            RequestTimeout: no answer in time. The edit may still be carried out later.
        """
        deadline = time.monotonic() + timeout
        reply = self._await(self.request(edit, version=self._version()), timeout)
        assert isinstance(reply, Applied)
        self._await_structure(reply.version, deadline)
        return reply

    def command(self, command: Command, *, timeout: float = 60.0) -> str:
        """Pause, resume, save a checkpoint, set a learning rate, ...; returns what was done.

        Raises as `ask` does.
        """
        reply = self._await(self.request(command), timeout)
        assert isinstance(reply, Done)
        return reply.detail

    def inspect(
        self, layer: str, filter: int, *, image: int | None = None, timeout: float = 60.0
    ) -> FilterInspection:
        """What a filter looks for, as the training tells it next.

        The training images that excite it are gathered from now on, for about ten seconds: ask
        again, and there are more of them.

        Args:
            layer: name of a conv.
            filter: index of one of its filters in the structure as last heard of.
            image: index into the validation data of the image in which it is told what excites
                the filter; None: the first of the batch.
            timeout: seconds to wait; a running training answers within a batch or two seconds.

        Raises as `ask` does.
        """
        deadline = time.monotonic() + timeout
        self._await(
            self.request(InspectFilter(layer, filter, image), version=self._version()), timeout
        )
        while time.monotonic() < deadline:
            messages, found = self._receive(), None
            for message in messages:
                if isinstance(message, FilterInspection):
                    mine = (message.layer, message.filter, message.image_index)
                    found = message if mine == (layer, filter, image) else found
            self._put_aside += [message for message in messages if message is not found]
            if found is not None:
                return found
            del self._put_aside[:-1024]
            time.sleep(POLL_SECONDS)
        raise RequestTimeoutError(
            f"no batch of run {self.connection.run} has ended within {timeout:g} s; it may be "
            "validating, paused or gone"
        )

    def plan(self, edit: Edit, *, timeout: float = 60.0) -> PlanSummary:
        """What `ask` would do, without doing it. Raises as `ask` does."""
        reply = self._await(self.request(edit, version=self._version(), dry_run=True), timeout)
        assert isinstance(reply, Planned)
        return reply.plan

    def sockets(self) -> list[int]:
        """Descriptors that become readable when there may be something for `poll`.

        Edge-triggered, as ØMQ's are: `poll` until nothing comes before waiting on them again, and
        once in a while anyway, because sending, too, takes the sign away.
        """
        return [self._requester.descriptor(), self._subscriber.descriptor()]

    def silent_for(self) -> float:
        """Seconds since the training was last heard."""
        return time.monotonic() - self.heard

    def is_gone(self) -> bool:
        """True once the run said that it ended, or its process on this machine is gone."""
        ended = self.status is not None and self.status.state in ("finished", "failed")
        return ended or self.connection.process_is_gone()

    def close(self) -> None:
        """Detach. The training does not notice."""
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
            self.heard = time.monotonic()
            if isinstance(message, Structure):
                self._take_structure(message)
            elif isinstance(message, Status):
                self.status = message
            elif isinstance(message, Snapshot):
                self.snapshot = message
                self._ask_for_structure(message.version)
        return messages

    def _ask_for_structure(self, version: int) -> None:
        """Telemetry may be dropped on a slow line; a structure that was missed is asked for."""
        known = self.structure is not None and self.structure.version == version
        if not known and time.monotonic() - self._greeted > HELLO_SECONDS:
            self._greet()

    def _greet(self) -> None:
        self._greeted = time.monotonic()
        self.request(ControlRun("hello"))

    def _take_structure(self, structure: Structure) -> None:
        known = self.structure
        # The two sockets are not ordered against each other: an old answer may come late.
        if known is None or known.run != structure.run or known.version <= structure.version:
            self.structure = structure

    def _await_structure(self, version: int, deadline: float) -> None:
        """The structure comes on the other socket, perhaps after the reply that speaks of it."""
        while (self._version() or 0) < version and time.monotonic() < deadline:
            self._put_aside += self._receive()
            self._ask_for_structure(version)
            del self._put_aside[:-1024]
            time.sleep(POLL_SECONDS)

    def _await(self, request_id: str, timeout: float) -> Applied | Planned | Done:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            answer = None
            for message in self._receive():
                if isinstance(message, Reply) and message.id == request_id:
                    answer = message
                else:
                    self._put_aside.append(message)
            if isinstance(answer, Refused):
                raise EditRefusedError(answer.reason)
            if answer is not None:
                return answer
            del self._put_aside[:-1024]  # nobody polls: keep the newest
            time.sleep(POLL_SECONDS)
        raise RequestTimeoutError(
            f"no answer from run {self.connection.run} within {timeout:g} s; it may be validating, "
            "paused or gone, and may still carry out the request later"
        )


def attach(connection: Connection | str | Path | None = None, *, timeout: float = 30.0) -> Run:
    """Attach to a training.

    Args:
        connection: a connection or the path of a connection file; None: the newest run here.
        timeout: seconds to wait for the training's first answer.

    Raises:
        ConnectionFileError: there is no such run, or its file is unusable.
        RequestTimeout: the training did not answer.
    """
    if connection is None:
        connection = connections.find_newest()
    elif not isinstance(connection, Connection):
        connection = connections.read(connection)
    run = Run(connection)
    deadline = time.monotonic() + timeout
    while run.structure is None:
        if time.monotonic() > deadline:
            run.close()
            raise RequestTimeoutError(
                f"the training behind {connection.requests} did not answer within {timeout:g} s; "
                "if it runs on another machine, forward its ports first"
            )
        run._put_aside += run._receive()
        time.sleep(POLL_SECONDS)
    return run
