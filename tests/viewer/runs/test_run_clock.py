from __future__ import annotations

import numpy as np

from revacnn_lightning.history.run_history import RunHistory
from tests.history.test_run_history import snapshot
from viewer.runs.run_clock import RunClock


def clock_of(steps: list[int]) -> RunClock:
    """Return the clock of a run of 10 batches per epoch and 2 seconds per batch."""
    history = RunHistory()
    for step in steps:
        history.add_scalars(snapshot(step))
    return RunClock(history.scalars)


def test_steps_become_epochs_and_seconds() -> None:
    clock = clock_of([9, 19, 29])
    np.testing.assert_allclose(clock.epochs(np.array([9, 14, 29])), [1, 1.5, 3])
    np.testing.assert_allclose(clock.seconds(np.array([9, 14, 29])), [0, 10, 40])


def test_steps_after_the_last_recorded_batch_continue_at_its_pace() -> None:
    clock = clock_of([9, 19])
    np.testing.assert_allclose(clock.seconds(np.array([29])), [40])
    assert clock.epochs(np.array([29])) == 3


def test_a_clock_without_batches_is_at_zero() -> None:
    np.testing.assert_array_equal(clock_of([]).seconds(np.array([1.0, 2.0])), [0, 0])
