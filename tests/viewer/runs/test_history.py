from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from viewer.runs.history import History, mean_per_segment


def test_history_keeps_every_row_until_full() -> None:
    history = History(2, 8)
    for step in range(7):
        assert history.add(step, np.array([step, -step]))
    assert history.steps.tolist() == list(range(7))
    assert history.rows[:, 1].tolist() == [-s for s in range(7)]


@pytest.mark.parametrize("n", [9, 100, 1000, 5000])
def test_history_is_bounded_and_covers_the_whole_run(n: int) -> None:
    history = History(1, 64)
    for step in range(n):
        history.add(step, np.array([step]))
    assert 32 <= history.length <= 64 or n < 32
    assert history.steps[0] < history.stride
    assert n - history.steps[-1] <= history.stride
    assert np.all(np.diff(history.steps) > 0)
    # Each row is the mean of its snapshots.
    center = history.steps - (history.stride - 1) / 2
    np.testing.assert_allclose(history.rows[:, 0], center, atol=0.51 * history.stride)


def test_means_ignore_missing_values() -> None:
    history = History(1, 4)
    for value in [1.0, np.nan, np.nan, np.nan, 5.0, 7.0]:
        history.add(0, np.array([value]))
    assert history.stride == 2
    np.testing.assert_allclose(history.rows[:, 0], [1.0, np.nan, 6.0])


def test_select_columns() -> None:
    history = History(3, 4)
    history.add(0, np.array([10, 11, 12]))
    history.select_columns(np.array([2, -1, 0, 1]))
    np.testing.assert_allclose(history.rows, [[12, np.nan, 10, 11]])
    assert history.width == 4


@pytest.mark.parametrize("missing", [0, 3, 8])
def test_mean_per_segment_ignores_missing_values(missing: int) -> None:
    values = np.random.default_rng(0).random((2, 12)).astype(np.float32)
    values[1, :missing] = np.nan
    means = mean_per_segment(values, np.array([0, 8, 12]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # segments without values
        expected = [[np.nanmean(segment) for segment in (row[:8], row[8:])] for row in values]
    np.testing.assert_allclose(means, expected, rtol=1e-6)


# Runs in a separate process with a fresh heap. Prints by how many bytes the resident memory exceeds
# the size of the history, at most.
MANY_EDITS = """
import resource
from pathlib import Path
import numpy as np
from viewer.runs.history import History

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

width, rows, peak = 9600, 600, 0
begin = resident()
history = History(width, rows)
for edit in range(30):
    for step in range(rows // 2):
        history.add(step, np.random.random(history.width))
    history.select_columns(np.arange(width + edit % 3) - edit % 3)
    others = [np.random.random(50_000) for _ in range(20)]
    peak = max(peak, resident())
print(peak - begin - 4 * rows * width)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_memory_of_earlier_shapes_is_released() -> None:
    command = [sys.executable, "-c", MANY_EDITS]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert int(done.stdout) < 2 * (4 * 600 * 9600)  # on the heap it was three times the size
