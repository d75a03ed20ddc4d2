"""Batches arrive in a loop, which ends with the run."""

from __future__ import annotations

import asyncio

import pytest

from revacnn_lightning import RequestTimeoutError
from revacnn_lightning.client import run_requests
from revacnn_lightning.protocol.messages import Status
from tests.client.simulated_run import SimulatedRun, layer, snapshot, structure


def test_a_loop_returns_all_batches_and_ends_with_the_run(training: SimulatedRun):
    training.publish(structure(), snapshot(0), snapshot(1), snapshot(2))
    training.end("finished")
    assert [batch.step for batch in training.run.batches()] == [0, 1, 2]
    assert list(training.run.batches()) == []


def test_an_asynchronous_loop_lets_others_run(training: SimulatedRun):
    training.publish(structure(), snapshot(0))
    steps = []

    async def collect() -> None:
        async for batch in training.run.batches():
            steps.append(batch.step)

    async def end_later() -> None:
        while not steps:
            await asyncio.sleep(0.01)
        training.publish(snapshot(1))
        training.end("finished")

    async def both() -> None:
        await asyncio.gather(collect(), end_later())

    asyncio.run(both())
    assert steps == [0, 1]


def test_only_the_newest_batch_is_returned_on_request(training: SimulatedRun):
    training.publish(structure(), *map(snapshot, range(5)))
    training.end("finished")
    training.until(lambda: training.run.take(lambda _: False) or training.run.has_ended())
    assert [batch.step for batch in training.run.batches(newest_only=True)] == [4]


def test_batches_that_arrive_during_a_request_are_not_lost(training: SimulatedRun):
    training.publish(structure(), snapshot(0), snapshot(1))
    training.end("finished")
    training.until(lambda: (training.run.take(lambda _: False), training.run.has_ended())[1])
    assert [batch.step for batch in training.run.batches()] == [0, 1]


def test_a_batch_belongs_to_the_structure_it_was_trained_with(training: SimulatedRun):
    """An edit may publish its structure before the statistics of the batch ahead of it."""
    edited = structure(1, layer("a", 0), layer("b", 4))
    training.publish(structure(), edited, snapshot(0, 0), snapshot(1, 1, filters=2))
    training.end("finished")
    first, second = training.run.batches()
    assert (len(first["a"]["gradient"]), len(second["a"]["gradient"])) == (2, 1)
    assert (first.version, second.version) == (0, 1)


def test_a_loop_without_batches_ends_after_its_timeout(training: SimulatedRun):
    with pytest.raises(RequestTimeoutError, match=r"sent no batch within 0\.05 s"):
        next(iter(training.run.batches(timeout=0.05)))


def test_the_time_in_the_body_of_a_loop_does_not_count(
    training: SimulatedRun, monkeypatch: pytest.MonkeyPatch
):
    now = 0.0
    monkeypatch.setattr("revacnn_lightning.client.batch_stream.time.monotonic", lambda: now)
    training.publish(structure(), snapshot(0))
    batches = iter(training.run.batches(timeout=5))
    assert next(batches).step == 0
    now = 100.0
    training.end("finished")
    training.until(lambda: (training.run.take(lambda _: False), training.run.has_ended())[1])
    assert list(batches) == []


def test_a_loop_over_an_unreachable_run_ends_with_an_error(
    training: SimulatedRun, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(run_requests, "UNREACHABLE_SECONDS", 0.3)
    training.close_sockets()
    with pytest.raises(RequestTimeoutError, match="has not been reachable"):
        list(training.run.batches())


def test_other_messages_stay_for_poll(training: SimulatedRun):
    training.publish(structure(), snapshot(0))
    training.end("finished", "done")
    list(training.run.batches())
    assert any(isinstance(message, Status) for message in training.run.poll())
