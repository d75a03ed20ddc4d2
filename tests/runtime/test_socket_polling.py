"""A run without clients polls its sockets less often than it trains batches."""

from __future__ import annotations

from revacnn_lightning.runtime.socket_polling import (
    ACTIVE_SECONDS,
    IDLE_SECONDS,
    SocketPollingSchedule,
)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def polls(polling: SocketPollingSchedule, clock: Clock, batches: int) -> int:
    """Return before how many batches the sockets are polled; a batch takes a tenth of the pause."""
    count = 0
    for _ in range(batches):
        count += polling.is_due()
        clock.now += IDLE_SECONDS / 10
    return count


def test_sockets_were_polled_before_each_batch_although_nobody_was_there() -> None:
    clock = Clock()
    polling = SocketPollingSchedule(clock)
    assert polling.is_due()
    assert polls(polling, clock, 100) in (9, 10, 11)


def test_with_a_client_they_are_polled_before_each_batch_and_for_a_while_after_it_has_left() -> (
    None
):
    clock = Clock()
    polling = SocketPollingSchedule(clock)
    polling.poll_often_for_client()
    assert polls(polling, clock, 100) == 100
    clock.now += ACTIVE_SECONDS
    assert polls(polling, clock, 100) < 15


def test_slow_batches_are_polled_before_each_of_them() -> None:
    clock = Clock()
    polling = SocketPollingSchedule(clock)
    for _ in range(5):
        assert polling.is_due()
        clock.now += 2 * IDLE_SECONDS
