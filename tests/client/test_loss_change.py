"""The measured change of the loss by an edit, of which scripts had only that of the output."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
from msgspec.structs import replace

from revacnn_lightning.client.loss_change import RecentLosses
from revacnn_lightning.errors import RequestTimeoutError
from revacnn_lightning.protocol.messages import Applied, PlanSummary
from tests.client.simulated_run import SimulatedRun, snapshot, structure

EDIT = Applied("id", 20, 1, PlanSummary("Remove"))


def losses_of(*parts: tuple[int, list[float]]) -> RecentLosses:
    """Return the losses of batches of these structures, in this order."""
    recent = RecentLosses()
    for version, losses in parts:
        for loss in losses:
            recent.add(replace(snapshot(0, version), loss=loss))
    return recent


def test_the_change_is_the_difference_of_the_means() -> None:
    random = np.random.default_rng(0)
    before, after = random.normal(1.0, 0.1, 40), random.normal(0.8, 0.2, 30)
    found = losses_of((0, before.tolist()), (1, after.tolist())).change_after(1, 25)
    assert (found.batches_before, found.batches_after, found.edits) == (25, 25, 1)
    assert found.before == pytest.approx(before[-25:].mean())
    assert found.after == pytest.approx(after[:25].mean())
    assert found.change == found.after - found.before
    variance = (before[-25:].var(ddof=1) + after[:25].var(ddof=1)) / 25
    assert found.error == pytest.approx(math.sqrt(variance))


def test_edits_that_came_close_together_are_counted() -> None:
    recent = losses_of((0, [1.0] * 30), (1, [1.0] * 3), (2, [2.0] * 25))
    found = recent.change_after(2, 25)
    assert (found.edits, found.batches_before, found.before, found.after) == (2, 25, 1.0, 2.0)
    assert recent.change_after(1, 25).batches_after == 3
    assert recent.change_after(1, 25).edits == 1


def test_merged_batches_count_as_many() -> None:
    recent = RecentLosses()
    for version in (0, 1):
        for _ in range(3):
            recent.add(replace(snapshot(0, version), loss=1.0 + version, batch_count=10))
    assert recent.is_complete(1, 30)
    assert not recent.is_complete(1, 31)
    assert recent.change_after(1, 25).batches_after == 30


def test_what_was_not_received_is_unknown() -> None:
    found = losses_of((1, [1.0])).change_after(1, 25)
    assert math.isnan(found.before)
    assert math.isnan(found.change)
    assert math.isnan(found.error)
    assert (found.after, found.batches_before) == (1.0, 0)


def test_the_losses_of_another_run_do_not_count() -> None:
    recent = losses_of((0, [1.0] * 5))
    recent.add(replace(snapshot(0, 1), run="next", loss=3.0))
    assert math.isnan(recent.change_after(1, 1).before)


def test_a_script_waits_for_the_batches_after_an_edit(training: SimulatedRun) -> None:
    training.publish(structure(0))
    for step in range(20):
        training.publish(replace(snapshot(step), loss=1.0))
    training.until(lambda: (training.run.snapshot is not None and training.run.snapshot.step == 19)
                   or (training.run.poll() and False))  # fmt: skip
    with pytest.raises(RequestTimeoutError, match="5 batches were not trained"):
        training.run.loss_change(EDIT, batches=5, timeout=0.1)

    def train() -> None:
        training.publish(structure(1))
        for step in range(20, 25):
            training.publish(replace(snapshot(step, 1), loss=0.5))

    timer = threading.Timer(0.3, train)
    timer.start()
    found = training.run.loss_change(EDIT, batches=5, timeout=60)
    timer.join()
    assert (found.change, found.batches_before, found.edits) == (-0.5, 5, 1)
    steps = [one.step for one in training.run.poll() if hasattr(one, "batch_index")]
    assert steps[-5:] == [20, 21, 22, 23, 24]  # `batches` returns them nevertheless
