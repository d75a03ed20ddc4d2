"""Requests whose reply is still to come: they are repeated when an interruption is over.

A request or its reply is lost if the connection breaks while it is underway. The run carries out a
repeated request once, and replies to it again (`runtime/repeated_requests.py`).
"""

from __future__ import annotations

import time
from collections import OrderedDict

from revacnn_lightning.protocol.messages import Request

__all__ = ["UnansweredRequests"]

MAX_REQUESTS = 64
# Later, nobody waits for the reply, and the change of a network would come as a surprise.
REPEATED_SECONDS = 60.0


class UnansweredRequests:
    """The requests of one client that have not been replied to, oldest first."""

    def __init__(self) -> None:
        self._sent: OrderedDict[str, tuple[float, Request]] = OrderedDict()

    def add(self, request: Request) -> None:
        """Add a request that was sent. The oldest of too many is dropped."""
        self._sent[request.id] = time.monotonic(), request
        if len(self._sent) > MAX_REQUESTS:
            self._sent.popitem(last=False)

    def remove(self, request_id: str) -> None:
        """Remove a request that was replied to, or whose reply nobody waits for."""
        self._sent.pop(request_id, None)

    def requests_to_repeat(self) -> list[Request]:
        """Return the requests to send again: those that were sent less than a minute ago."""
        oldest = time.monotonic() - REPEATED_SECONDS
        return [request for sent, request in self._sent.values() if sent >= oldest]
