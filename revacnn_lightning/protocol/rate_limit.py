"""Limits on how often something may happen, so that a flood costs the training almost nothing."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable

from revacnn_lightning.protocol.plain_text import escape_control_characters

__all__ = ["ClientBuckets", "RateLimitedLog", "TokenBucket"]

MAX_CLIENTS = 256  # that are remembered
# Warnings about one client, and about all of them.
CLIENT_WARNING_SECONDS, CLIENT_WARNING_BURST = 60.0, 2
WARNING_SECONDS, WARNING_BURST = 15.0, 8


class TokenBucket:
    """Admits ``rate`` events per second on average, and ``burst`` of them in a row.

    The unit of an event is up to its user: a request, a byte, or a second of work.

    Args:
        rate: events per second.
        burst: events in a row.
        clock: returns monotonic seconds.
    """

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._tokens = burst
        self._refilled = clock()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is admitted now."""
        self._refill()
        return self._tokens <= 0

    def try_take(self, tokens: float = 1.0) -> bool:
        """Take tokens and return True, or return False if there are not enough."""
        self._refill()
        if self._tokens < tokens:
            return False
        self._tokens -= tokens
        return True

    def spend(self, tokens: float) -> None:
        """Take tokens for events that have happened already, even more than there are.

        Nothing is admitted until the missing tokens are refilled.
        """
        self._refill()
        self._tokens -= tokens

    def _refill(self) -> None:
        now = self._clock()
        added = (now - self._refilled) * self._rate
        self._tokens = min(self._burst, self._tokens + added)
        self._refilled = now


class ClientBuckets:
    """A token bucket for each client. The clients that were idle for longest are forgotten."""

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[bytes, TokenBucket] = OrderedDict()

    def try_take(self, client: bytes, tokens: float = 1.0) -> bool:
        """Take tokens of a client and return True, or return False if there are not enough."""
        return self._bucket_of(client).try_take(tokens)

    def spend(self, client: bytes, tokens: float) -> None:
        """Take tokens of a client for what has happened already; see `TokenBucket.spend`."""
        self._bucket_of(client).spend(tokens)

    def _bucket_of(self, client: bytes) -> TokenBucket:
        bucket = self._buckets.pop(client, None)
        if bucket is None:
            bucket = TokenBucket(self._rate, self._burst, self._clock)
        self._buckets[client] = bucket  # at the end, as the one used last
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return bucket


class RateLimitedLog:
    """Logs warnings about clients, a few per minute, with control characters shown."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clients = ClientBuckets(1 / CLIENT_WARNING_SECONDS, CLIENT_WARNING_BURST, clock)
        self._all = TokenBucket(1 / WARNING_SECONDS, WARNING_BURST, clock)
        self._omitted = 0

    def warning(
        self, client: bytes, message: str, *arguments: object, exc_info: bool = False
    ) -> None:
        """Log a warning, unless too many were logged; the next one says how many were omitted."""
        if not self._clients.try_take(client) or not self._all.try_take():
            self._omitted += 1
            return
        text = escape_control_characters(message % arguments)
        if self._omitted:
            text += f" ({self._omitted} more warnings about viewers were omitted)"
            self._omitted = 0
        self._log.warning("%s", text, exc_info=exc_info)
