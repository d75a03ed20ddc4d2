from __future__ import annotations

import numpy as np

from viewer.runs.run_clock import CAPACITY, RunClock


def test_steps_become_epochs_and_seconds() -> None:
    clock = RunClock()
    for step in range(10, 31, 10):
        clock.add(step, step / 20, 1000.0 + step)
    np.testing.assert_allclose(clock.epochs(np.array([10, 15, 30])), [0.5, 0.75, 1.5])
    np.testing.assert_allclose(clock.seconds(np.array([10, 15, 30])), [0, 5, 20])


def test_steps_after_the_last_moment_continue_at_its_pace() -> None:
    clock = RunClock()
    clock.add(0, 0.0, 50.0)
    clock.add(10, 1.0, 70.0)
    np.testing.assert_allclose(clock.seconds(np.array([20])), [40])
    assert clock.epochs(np.array([20])) == 2.0


def test_a_clock_without_moments_is_at_zero() -> None:
    np.testing.assert_array_equal(RunClock().seconds(np.array([1.0, 2.0])), [0, 0])


def test_a_long_run_is_covered_from_its_first_to_its_newest_moment() -> None:
    clock = RunClock()
    n = 5 * CAPACITY
    for step in range(n):
        clock.add(step, step / 100, 1e9 + 0.25 * step)
    steps = np.linspace(0, n - 1, 50)
    np.testing.assert_allclose(clock.seconds(steps), 0.25 * steps, atol=1e-3)
    np.testing.assert_allclose(clock.epochs(steps), steps / 100, atol=1e-6)


def test_a_step_that_is_not_newer_is_ignored() -> None:
    clock = RunClock()
    clock.add(5, 0.5, 10.0)
    clock.add(5, 9.0, 99.0)
    clock.add(4, 9.0, 99.0)
    assert clock.epochs(np.array([5.0])) == 0.5
