"""Which ranks are in trouble, from their heartbeats. The clock is simulated."""

from __future__ import annotations

import pytest

from revacnn_lightning.client.rank_health import RankHealth
from revacnn_lightning.protocol.rank_messages import TroubledRank, TroubledRanks
from revacnn_lightning.runtime.ranks.rank_watch import RankWatch


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> RankWatch:
    return RankWatch([1, 2], clock)


def problems(watch: RankWatch, step: int = 0) -> list[tuple[int, str]]:
    return [(state.rank, state.problem) for state in watch.states(step)]


def test_a_stopped_rank_is_silent_within_two_seconds_until_it_goes_on(
    watch: RankWatch, clock: Clock
):
    for _ in range(4):
        clock.now += 0.5
        watch.receive(2, 7)
        watch.receive(1, 7) if clock.now < 101 else None
    assert problems(watch, 7) == []  # 1.5 s
    clock.now += 0.5
    watch.receive(2, 7)
    [state] = watch.states(7)
    assert (state.rank, state.problem, state.seconds) == (1, "silent", 2.0)
    watch.receive(1, 7)
    assert problems(watch, 7) == []


def test_a_rank_in_an_earlier_batch_is_behind(watch: RankWatch, clock: Clock):
    for step in (8, 9):  # one batch later than rank 1, as it happens in every batch
        watch.receive(1, step - 1)
        watch.receive(2, step)
        assert problems(watch, step) == []
        watch.receive(1, step)
        assert problems(watch, step) == []
        clock.now += 1.5
    for _ in range(5):
        watch.receive(1, 9)
        watch.receive(2, 10)
        found = problems(watch, 10)
        clock.now += 0.6
    assert found == [(1, "behind")]


def test_the_first_rank_that_was_lost_is_named(watch: RankWatch):
    assert watch.describe_first_lost_rank() == ""
    watch.record_lost_rank(2, "ValueError: no data")
    watch.record_lost_rank(2)  # its connection closes
    watch.record_lost_rank(1)
    assert watch.describe_first_lost_rank() == "rank 2 failed: ValueError: no data"
    assert problems(watch) == [(2, "failed"), (1, "ended")]


def test_a_rank_that_has_finished_is_in_no_trouble(watch: RankWatch, clock: Clock):
    for rank in (1, 2):
        watch.finish(rank)
        watch.record_lost_rank(rank)
    clock.now += 60
    assert problems(watch, 5) == []
    assert watch.describe_first_lost_rank() == ""


def test_a_client_names_the_rank(clock: Clock):
    health = RankHealth(clock)
    assert (health.problem(), health.world_size) == ("", 1)
    health.receive(
        TroubledRanks("run", 4, [TroubledRank(3, "silent", 2.0), TroubledRank(1, "behind", 3.0)])
    )
    assert health.problem() == (
        "rank 3 of 4 has sent nothing for 2 s; "
        "rank 1 of 4 has not begun the batch of the others for 3 s"
    )
    health.receive(TroubledRanks("run", 4))
    assert health.problem() == ""
    clock.now += 2.6
    assert health.problem() == "rank 0 of 4 has sent nothing for 3 s"


def test_a_client_names_a_lost_rank_when_the_others_end_too(clock: Clock):
    health = RankHealth(clock)
    health.receive(TroubledRanks("run", 2, [TroubledRank(1, "ended")]))
    clock.now += 60  # Lightning has ended rank 0
    assert health.has_lost_rank
    assert health.problem() == "rank 1 of 2 has ended"


def test_an_internal_error_is_a_trouble_of_a_rank_that_still_trains(watch: RankWatch):
    assert watch.describe_first_trouble() == ""
    watch.report_error(2, "KeyError: 'conv1'")
    assert problems(watch) == []
    assert (
        watch.describe_first_lost_rank() == ""
    )  # it is no reason for an exception of the training
    text = "internal error of ReVACNN in rank 2: KeyError: 'conv1'"
    assert watch.describe_first_trouble() == text
    assert watch.pop_errors() == [text]
    assert watch.pop_errors() == []
    watch.record_lost_rank(1)
    assert watch.describe_first_trouble() == "rank 1 has ended"
