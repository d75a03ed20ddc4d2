"""Snapshots of several batches: the mean and the maximum of each value."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from revacnn_lightning import ReVACNN
from revacnn_lightning.protocol.messages import Snapshot
from revacnn_lightning.runtime.arguments import seconds_between_snapshots
from revacnn_lightning.runtime.snapshot_merger import SnapshotMerger
from tests.manual_clock import ManualClock

NAN = np.nan


def snapshot(step: int, values: list[list[float]], **changes: object) -> Snapshot:
    fields = {
        "run": "r", "version": 0, "step": step, "epoch": 0, "batch_index": step,
        "batches_per_epoch": 0, "max_epochs": 0, "time": 0.0, "loss": float(step),
        "learning_rates": [0.1], "batches_per_second": 500.0, "statistics": ["gradient"],
        "values": np.array(values, np.float32),
    }  # fmt: skip
    return Snapshot(**(fields | changes))


def test_each_batch_is_published_without_a_rate():
    merger = SnapshotMerger(0.0)
    sent = [snapshot(step, [[1.0]]) for step in range(3)]
    assert [one for each in sent for one in merger.add(each)] == sent
    assert not list(merger.flush())


def test_a_slow_training_publishes_each_batch_as_it_is():
    clock = ManualClock()
    merger = SnapshotMerger(0.1, clock)
    for step in range(3):
        clock.now += 1.0
        sent = snapshot(step, [[1.0]])
        assert list(merger.add(sent)) == [sent]


def test_the_batches_between_are_in_the_mean_and_in_the_maximum():
    clock = ManualClock()
    merger = SnapshotMerger(0.1, clock)
    assert len(list(merger.add(snapshot(0, [[9.0, 9.0]])))) == 1
    assert not list(merger.add(snapshot(1, [[1.0, 5.0]])))
    assert not list(merger.add(snapshot(2, [[2.0, 1.0]], nonfinite_gradients=True)))
    clock.now += 0.125
    (merged,) = merger.add(snapshot(3, [[6.0, 3.0]]))
    np.testing.assert_array_equal(merged.values, [[3.0, 3.0]])
    np.testing.assert_array_equal(merged.maxima, [[6.0, 5.0]])
    assert (merged.step, merged.first_step, merged.batch_count) == (3, 1, 3)
    assert (merged.loss, merged.max_loss) == (2.0, 3.0)
    assert merged.nonfinite_gradients


def test_values_that_a_batch_did_not_record_do_not_count():
    merger = SnapshotMerger(9.0)
    list(merger.add(snapshot(0, [[0.0]])))
    rows = [[NAN, 1.0, NAN, np.inf], [4.0, NAN, NAN, 1.0], [2.0, 2.0, NAN, 1.0]]
    for step, row in enumerate(rows):
        list(merger.add(snapshot(1 + step, [row])))
    (merged,) = merger.flush()
    np.testing.assert_array_equal(merged.values, [[3.0, 1.5, NAN, np.inf]])
    np.testing.assert_array_equal(merged.maxima, [[4.0, 2.0, NAN, np.inf]])


def test_a_loss_that_is_nan_in_one_batch_is_seen():
    merger = SnapshotMerger(9.0)
    list(merger.add(snapshot(0, [[0.0]])))
    for step, loss in enumerate((1.0, NAN, None, 2.0)):
        list(merger.add(snapshot(1 + step, [[0.0]], loss=loss)))
    (merged,) = merger.flush()
    assert np.isnan(merged.loss)
    assert np.isnan(merged.max_loss)


def test_the_arrays_of_the_recordings_are_not_modified():
    merger, sent = SnapshotMerger(9.0), [snapshot(step, [[float(step)]]) for step in range(4)]
    for each in sent:
        list(merger.add(each))
    list(merger.flush())
    assert [each.values.item() for each in sent] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "change", [{"version": 1}, {"statistics": ["activation"]}, {"values": np.ones((1, 2))}]
)
def test_batches_of_different_networks_are_not_merged(change: dict[str, object]):
    merger = SnapshotMerger(9.0)
    list(merger.add(snapshot(0, [[0.0]])))
    list(merger.add(snapshot(1, [[1.0]])))
    (before,) = merger.add(msgspec.structs.replace(snapshot(2, [[2.0]]), **change))
    assert before.step == 1
    (after,) = merger.flush()
    assert after.step == 2


@pytest.mark.parametrize(
    ("publish", "seconds"),
    [("every batch", 0.0), ("10 Hz", 0.1), ("0.5 Hz", 2.0), ("20Hz", 0.05)],
)
def test_rates_are_understood(publish: str, seconds: float):
    assert seconds_between_snapshots(publish) == pytest.approx(seconds)


@pytest.mark.parametrize("publish", ["", "10", "0 Hz", "-1 Hz", "1e9 Hz", "sometimes", 10, None])
def test_other_values_are_refused_with_what_is_possible(publish: object):
    with pytest.raises(ValueError, match=r'publish must be "every batch" or a rate .* "10 Hz"'):
        ReVACNN(publish=publish)
