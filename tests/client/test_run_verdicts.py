"""What a run knows of its filters from its batches."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from revacnn_lightning.diagnostics.dead_filters import DEAD_BATCHES
from revacnn_lightning.protocol.messages import LayerInfo
from tests.client.simulated_run import SimulatedRun, layer, snapshot, structure


def test_dead_filters_of_a_run_are_those_of_the_page(training: SimulatedRun) -> None:
    step = 0

    def publish_structure(version: int, *layers: LayerInfo) -> None:
        training.publish(structure(version, *layers))
        training.until(training.run.poll)

    def publish_batches(count: int, activation: list[float]) -> None:
        nonlocal step
        for _ in range(count):  # one by one: a run never waits for a slow client
            step += 1
            values = np.array([[0] * 5, activation], np.float32)
            training.publish(replace(snapshot(step), values=values))
            training.until(training.run.poll)

    publish_structure(0, layer("a", 0, 1), layer("b", 0, 1, 2))
    publish_batches(DEAD_BATCHES - 1, [1, 0, 0, 2, 0])
    assert training.run.dead_filters("b") == []
    publish_batches(1, [1, 0, 0, 2, 3])
    assert training.run.dead_filters("a") == [1]
    assert training.run.dead_filters("b") == [0]
    publish_structure(1, layer("a", 0, 1), layer("b", 2, 3, 0))
    assert training.run.dead_filters("b") == [2]
    with pytest.raises(ValueError, match="no watched layer c"):
        training.run.dead_filters("c")


def test_verdicts_of_a_run_follow_from_its_batches(training: SimulatedRun) -> None:
    training.publish(structure(0, layer("a", 0, 1), layer("b", 0, 1, 2)))
    training.until(training.run.poll)
    assert [verdict.is_known for verdict in training.run.verdicts()] == [False]
    values = np.array([[1] * 5, [1, 0, 4, 4, 0.01]], np.float32)
    for step in range(DEAD_BATCHES):
        training.publish(replace(snapshot(step), values=values))
        training.until(training.run.poll)
    dead, dormant = training.run.verdicts()
    assert (dead.kind, dead.layer, dead.filters) == ("dead", "a", (1,))
    assert (dormant.kind, dormant.layer, dormant.filters) == ("dormant", "b", (2,))


def test_nothing_watched_raised_in_verdicts_and_left_figures_waiting(
    training: SimulatedRun,
) -> None:
    training.publish(replace(structure(), layers=[]))
    for step in range(DEAD_BATCHES + 1):
        training.publish(snapshot(step, filters=0))
        training.until(training.run.poll)
    (verdict,) = training.run.verdicts()
    assert not verdict.is_known
    assert 'layers="all"' in verdict.evidence
    assert "layers=&quot;all&quot;" in training.run.figure(timeout=10).svg
