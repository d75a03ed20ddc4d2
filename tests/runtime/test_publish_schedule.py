from __future__ import annotations

import pytest

from revacnn_lightning.protocol.run_sockets import SEND_QUEUE
from revacnn_lightning.runtime.publish_schedule import MAX_DELAY_SECONDS, PublishSchedule
from tests.manual_clock import ManualClock


def published(
    seconds_per_batch: float, max_delay: float = MAX_DELAY_SECONDS, batches: int = 12
) -> list[int]:
    """Return the numbers of the batches after which the schedule publishes."""
    clock = ManualClock()
    schedule = PublishSchedule(max_delay, clock)
    found = []
    for batch in range(batches):
        if schedule.is_due():
            found.append(batch)
        clock.now += seconds_per_batch
    return found


def test_the_first_batch_is_published_immediately():
    assert published(0.001)[0] == 0


@pytest.mark.parametrize("seconds", [0.041, 0.05, 10.0])
def test_each_batch_of_a_slow_training_is_published_immediately(seconds: float):
    assert published(seconds) == list(range(12))


def test_without_a_delay_each_batch_is_published_immediately():
    assert published(0.001, max_delay=0.0) == list(range(12))


def test_batches_of_a_fast_training_wait_for_the_next_ones():
    assert published(0.03) == [0, 2, 4, 6, 8, 10]
    assert published(0.015) == [0, 3, 6, 9]


def test_so_few_batches_are_published_in_a_row_that_no_client_loses_one():
    assert published(0.001, batches=300) == list(range(0, 300, SEND_QUEUE // 3))


@pytest.mark.parametrize("seconds", [0.003, 0.011, 0.019, 0.033, 0.039])
def test_no_batch_waits_for_longer_than_allowed(seconds: float):
    steps = published(seconds, batches=60)
    oldest = [previous + 1 for previous in steps]
    waits = [(now - first) * seconds for first, now in zip(oldest, steps[1:], strict=False)]
    assert max(waits) <= MAX_DELAY_SECONDS
