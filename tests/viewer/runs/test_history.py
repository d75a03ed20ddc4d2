from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from viewer.runs.history import History, mean_per_segment


def test_it_holds_every_row_until_it_is_full() -> None:
    series = History(2, 8)
    for step in range(7):
        assert series.add(step, np.array([step, -step]))
    assert series.steps.tolist() == list(range(7))
    assert series.rows[:, 1].tolist() == [-s for s in range(7)]


@pytest.mark.parametrize("n", [9, 100, 1000, 5000])
def test_it_stays_bounded_and_reaches_back_to_the_beginning(n: int) -> None:
    series = History(1, 64)
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
    series = History(1, 4)
    for value in [1.0, np.nan, np.nan, np.nan, 5.0, 7.0]:
        series.add(0, np.array([value]))
    assert series.stride == 2
    np.testing.assert_allclose(series.rows[:, 0], [1.0, np.nan, 6.0])


def test_columns_follow_an_edit() -> None:
    series = History(3, 4)
    series.add(0, np.array([10, 11, 12]))
    series.select_columns(np.array([2, -1, 0, 1]))
    np.testing.assert_allclose(series.rows, [[12, np.nan, 10, 11]])
    assert series.width == 4


@pytest.mark.parametrize("missing", [0, 3, 8])
def test_a_layers_mean_is_of_the_filters_that_have_a_value(missing: int) -> None:
    values = np.random.default_rng(0).random((2, 12)).astype(np.float32)
    values[1, :missing] = np.nan
    found = mean_per_segment(values, np.array([0, 8, 12]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of parts without any value
        expected = [[np.nanmean(part) for part in (row[:8], row[8:])] for row in values]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


# In a process of its own, whose heap no other test has shaped. Prints how many bytes more it has
# held between two edits, at the most, than a history of this size needs.
MANY_EDITS = """
import resource
from pathlib import Path
import numpy as np
from viewer.runs.history import History

def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

width, rows, most = 9600, 600, 0
begin = held()
series = History(width, rows)
for edit in range(30):
    for step in range(rows // 2):
        series.add(step, np.random.random(series.width))
    series.select_columns(np.arange(width + edit % 3) - edit % 3)
    others = [np.random.random(50_000) for _ in range(20)]
    most = max(most, held())
print(most - begin - 4 * rows * width)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_many_edits_leave_the_memory_of_earlier_shapes_with_the_process() -> None:
    command = [sys.executable, "-c", MANY_EDITS]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert int(done.stdout) < 2 * (4 * 600 * 9600)  # of the heap it was three
