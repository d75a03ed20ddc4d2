"""The batches of a run as they arrive, for ``for`` and ``async for``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

from revacnn_lightning.client.batch import Batch
from revacnn_lightning.client.run_requests import POLL_SECONDS, RunRequests
from revacnn_lightning.errors import RequestTimeoutError
from revacnn_lightning.protocol.messages import Message, Snapshot

__all__ = ["BatchStream"]


class BatchStream:
    """Yields the batches of a run until the run has ended.

    Args:
        run: the run.
        newest_only: skip all but the newest batch that has arrived.
        timeout: seconds to wait for a batch; None waits without a limit.

    Raises:
        RequestTimeoutError: no batch arrived in time, or the run is unreachable.
    """

    def __init__(
        self, run: RunRequests, *, newest_only: bool = False, timeout: float | None = None
    ) -> None:
        self._run = run
        self._newest_only = newest_only
        self._timeout = timeout
        self._run_has_ended = False

    def __iter__(self) -> Iterator[Batch]:
        waiting_since = time.monotonic()
        while True:
            batches = self._receive()
            yield from batches
            if batches:
                waiting_since = time.monotonic()
            elif self._is_over(waiting_since):
                return
            else:
                time.sleep(POLL_SECONDS)

    async def __aiter__(self) -> AsyncIterator[Batch]:
        waiting_since = time.monotonic()
        while True:
            batches = self._receive()
            for batch in batches:
                yield batch
            if batches:
                waiting_since = time.monotonic()
            elif self._is_over(waiting_since):
                return
            else:
                await asyncio.sleep(POLL_SECONDS)

    def _receive(self) -> list[Batch]:
        self._run_has_ended = self._run.has_ended()  # before its last messages are received
        snapshots = self._run.take(_is_snapshot)
        batches = [self._run.batch_of(one) for one in snapshots if isinstance(one, Snapshot)]
        known = [batch for batch in batches if batch is not None]
        return known[-1:] if self._newest_only else known

    def _is_over(self, waiting_since: float) -> bool:
        """Return whether the run has ended; raise if waiting is in vain."""
        if self._run_has_ended:
            return True
        self._run.check_reachable()
        waited = time.monotonic() - waiting_since
        if self._timeout is not None and waited > self._timeout:
            raise RequestTimeoutError(
                f"run {self._run.connection.run} sent no batch within {self._timeout:g} s; it may "
                "be validating or paused: check its status"
            )
        return False


def _is_snapshot(message: Message) -> bool:
    return isinstance(message, Snapshot)
