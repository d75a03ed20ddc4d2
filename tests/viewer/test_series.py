from __future__ import annotations

import numpy as np
import pytest

from viewer.series import Series


def test_it_holds_every_row_until_it_is_full() -> None:
    series = Series(2, 8)
    for step in range(7):
        assert series.add(step, np.array([step, -step]))
    assert series.steps.tolist() == list(range(7))
    assert series.rows[:, 1].tolist() == [-s for s in range(7)]


@pytest.mark.parametrize("n", [9, 100, 1000, 5000])
def test_it_stays_bounded_and_reaches_back_to_the_beginning(n: int) -> None:
    series = Series(1, 64)
    for step in range(n):
        series.add(step, np.array([step]))
    assert 32 <= series.length <= 64 or n < 32
    assert series.steps[0] < series.stride
    assert n - series.steps[-1] <= series.stride
    assert np.all(np.diff(series.steps) > 0)
    # Each row is the mean of what it stands for.
    centre = series.steps - (series.stride - 1) / 2
    np.testing.assert_allclose(series.rows[:, 0], centre, atol=0.51 * series.stride)


def test_missing_values_are_left_out_of_the_means() -> None:
    series = Series(1, 4)
    for value in [1.0, np.nan, np.nan, np.nan, 5.0, 7.0]:
        series.add(0, np.array([value]))
    assert series.stride == 2
    np.testing.assert_allclose(series.rows[:, 0], [1.0, np.nan, 6.0])


def test_columns_follow_an_edit() -> None:
    series = Series(3, 4)
    series.add(0, np.array([10, 11, 12]))
    series.select_columns(np.array([2, -1, 0, 1]))
    np.testing.assert_allclose(series.rows, [[12, np.nan, 10, 11]])
    assert series.width == 4
