"""Token buckets, and a log that a flood does not fill."""

from __future__ import annotations

import logging

import pytest

from revacnn_lightning.protocol import rate_limit
from revacnn_lightning.protocol.rate_limit import ClientBuckets, RateLimitedLog, TokenBucket
from tests.manual_clock import ManualClock


def test_a_burst_is_admitted_and_then_the_rate():
    clock = ManualClock()
    bucket = TokenBucket(2.0, 3, clock)
    assert [bucket.try_take() for _ in range(5)] == [True, True, True, False, False]
    clock.now += 1.0
    assert [bucket.try_take() for _ in range(3)] == [True, True, False]
    clock.now += 1000.0
    assert [bucket.try_take() for _ in range(4)] == [True, True, True, False]


def test_a_bucket_that_owes_admits_nothing():
    clock = ManualClock()
    bucket = TokenBucket(1.0, 1, clock)
    bucket.spend(3.0)
    clock.now += 2.0
    assert bucket.is_empty
    clock.now += 0.5
    assert not bucket.is_empty


def test_each_client_has_a_bucket_and_few_are_remembered():
    buckets = ClientBuckets(rate=0.0, burst=1)
    assert buckets.try_take(b"a")
    assert not buckets.try_take(b"a")
    assert buckets.try_take(b"b")
    for index in range(10_000):
        buckets.try_take(b"%d" % index)
    assert len(buckets._buckets) == rate_limit.MAX_CLIENTS
    assert buckets.try_take(b"a")


def test_the_next_warning_says_how_many_are_missing(caplog: pytest.LogCaptureFixture):
    clock = ManualClock()
    log = RateLimitedLog(logging.getLogger("test"), clock)
    for _ in range(100):
        log.warning(b"client", "Refused %s", "\x1b[2Jnothing\n")
    assert caplog.messages == ["Refused \\x1b[2Jnothing\\n"] * 2
    clock.now += 60.0
    log.warning(b"client", "Refused it")
    assert caplog.messages[-1] == "Refused it (98 more warnings about viewers were omitted)"
