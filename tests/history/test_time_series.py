"""`TimeSeries`, compared with a version that keeps every sample."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest

from revacnn_lightning.history.time_series import TimeSeries, mean_per_segment


class SlowSeries:
    """Keeps all samples, and groups them by their step when asked."""

    def __init__(self) -> None:
        self.samples: list[tuple[int, np.ndarray]] = []

    def rows(self, stride: int) -> tuple[list[int], list[np.ndarray]]:
        groups: dict[int, list[tuple[int, np.ndarray]]] = {}
        for step, row in self.samples:
            groups.setdefault(step // stride, []).append((step, row))
        steps = [max(step for step, _ in group) for group in groups.values()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of columns without values
            means = [np.nanmean([row for _, row in group], axis=0) for group in groups.values()]
        return steps, means


def sampled_steps(kind: str, n: int, random: np.random.Generator) -> np.ndarray:
    if kind == "every batch":
        return np.arange(n)
    gaps = random.integers(1, 80, n)
    if kind == "dense in the middle":  # as while a viewer was attached
        gaps[n // 3 : 2 * n // 3] = 1
    return np.cumsum(gaps)


@pytest.mark.parametrize("kind", ["every batch", "sampled", "dense in the middle"])
@pytest.mark.parametrize("n", [5, 63, 64, 65, 1000, 3000])
def test_rows_are_the_means_of_their_batches(kind: str, n: int) -> None:
    random = np.random.default_rng(n)
    series, slow = TimeSeries(3, 64), SlowSeries()
    for step in sampled_steps(kind, n, random):
        row = random.random(3)
        row[2] = np.nan  # never measured
        series.add(step, row)
        slow.samples.append((int(step), row))
    steps, rows = slow.rows(series.stride)
    assert series.steps.tolist() == steps
    np.testing.assert_allclose(series.rows, rows, rtol=1e-5)
    assert series.weights.sum() == n
    assert series.length <= 64
    if series.stride > 1:  # no coarser than necessary
        assert len(slow.rows(series.stride // 2)[0]) > 64


def test_a_statistic_sampled_on_some_batches_has_the_mean_of_these() -> None:
    series, slow = TimeSeries(2, 8), SlowSeries()
    for step in range(500):
        row = np.array([step, step if step % 4 == 0 else np.nan], float)
        series.add(step, row)
        slow.samples.append((step, row))
    np.testing.assert_allclose(series.rows, slow.rows(series.stride)[1], rtol=1e-5)


def test_the_newest_sample_is_shown_before_its_row_is_complete() -> None:
    series = TimeSeries(1, 4)
    for step in range(9):
        series.add(step, np.array([step]))
    assert series.stride == 4
    assert series.steps.tolist() == [3, 7, 8]
    assert series.rows[-1, 0] == 8


def test_values_that_are_not_finite_are_ignored_in_means() -> None:
    series = TimeSeries(1, 4)
    for step, value in enumerate([1.0, np.inf, np.nan, np.nan, 5.0, 7.0]):
        series.add(step, np.array([value]))
    assert series.stride == 2
    np.testing.assert_allclose(series.rows[:, 0], [1.0, np.nan, 6.0])


def test_doubling_the_stride_of_wide_rows_copies_little() -> None:
    """A server that merges the rows of a large network sends nothing meanwhile."""
    series = TimeSeries(40_000, 64)
    for step in range(64):
        series.add(step, np.full(series.width, step, np.float32))
    tracemalloc.start()
    series.add(64, np.zeros(series.width, np.float32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(series.rows[:, 0], [*np.arange(0.5, 64, 2), 0])
    assert peak < series.rows.nbytes


def test_missing_values_do_not_spoil_the_means_of_pairs() -> None:
    rows = np.random.default_rng(0).random((8, 5)).astype(np.float32)
    rows[3, 1], rows[4:6, 2], rows[0, 3] = np.nan, np.nan, np.inf
    series = TimeSeries(5, 8)
    for step, row in enumerate(rows):
        series.add(step, row)
    series.add(8, rows[0])
    expected = np.where(np.isfinite(rows), rows, np.nan).reshape(4, 2, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of columns without values
        np.testing.assert_allclose(series.rows[:4], np.nanmean(expected, axis=1), rtol=1e-6)


def test_prepended_rows_precede_those_of_the_series() -> None:
    random = np.random.default_rng(0)
    whole, early, late = TimeSeries(2, 64), TimeSeries(2, 64), TimeSeries(2, 64)
    for step in range(3000):
        row = random.random(2)
        whole.add(step, row)
        (early if step < 2500 else late).add(step, row)
        if step == 2600:  # the reply arrives
            late.prepend(early.steps, early.weights, early.rows)
    assert late.steps[0] == early.steps[0]
    assert late.steps[-1] == 2999
    assert late.weights.sum() == 3000
    assert late.length <= 64
    np.testing.assert_allclose(
        (late.rows * late.weights[:, None]).sum(0),
        (whole.rows * whole.weights[:, None]).sum(0),
        rtol=1e-5,
    )


def test_prepended_rows_that_are_not_earlier_are_ignored() -> None:
    series = TimeSeries(1, 8)
    for step in (10, 11):
        series.add(step, np.array([1.0]))
    series.prepend(np.array([4.0, 10.0]), np.ones(2), np.array([[2.0], [3.0]]))
    assert series.steps.tolist() == [4, 10, 11]
    assert series.rows[:, 0].tolist() == [2, 1, 1]


@pytest.mark.parametrize(
    ("steps", "rows"),
    [([3, 3], (2, 1)), ([4, 3], (2, 1)), ([-1, 3], (2, 1)), ([1, 2], (2, 5)), ([1], (2, 1)),
     ([1, np.inf], (2, 1)), ([1, np.nan], (2, 1))],
)  # fmt: skip
def test_prepended_rows_that_do_not_fit_are_refused(
    steps: list[float], rows: tuple[int, int]
) -> None:
    series = TimeSeries(1, 8)
    with pytest.raises(ValueError, match=r"steps"):
        series.prepend(np.array(steps, float), np.ones(len(steps)), np.zeros(rows))
    assert series.length == 0


def test_select_columns() -> None:
    series = TimeSeries(3, 4)
    series.add(0, np.array([10, 11, 12]))
    series.select_columns(np.array([2, -1, 0, 1]))
    np.testing.assert_allclose(series.rows, [[12, np.nan, 10, 11]])
    assert series.width == 4


def test_a_row_continues_after_its_columns_were_reordered() -> None:
    series = TimeSeries(2, 4)
    for step in range(7):
        series.add(step, np.array([step, 10 * step]))
    assert series.steps[-1] == 6
    assert series.stride == 2
    series.select_columns(np.array([1]))
    series.add(7, np.array([70]))
    assert series.rows[-1, 0] == 65


def test_wider_rows_reduce_the_capacity() -> None:
    series = TimeSeries(2, 64, max_bytes=4 * 2 * 64)
    for step in range(64):
        series.add(step, np.array([step, step]))
    series.select_columns(np.array([0, 1, 0, 1, 0, 1, 0, 1]))
    assert series.capacity == 16
    assert series.length <= 16
    assert series.weights.sum() == 64
    np.testing.assert_allclose(series.rows[:, 7], np.arange(1.5, 64, 4))


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
# the size of the series, at most.
MANY_EDITS = """
import resource
from pathlib import Path
import numpy as np
from revacnn_lightning.history.time_series import TimeSeries

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

width, rows, peak, last = 9600, 600, 0, 0
begin = resident()
series = TimeSeries(width, rows)
for edit in range(6):
    for step in range(rows // 2):
        last += 1
        series.add(last, np.random.random(series.width))
    series.select_columns(np.arange(width + edit % 3) - edit % 3)
    others = [np.random.random(50_000) for _ in range(20)]
    peak = max(peak, resident())
print(peak - begin - 4 * rows * width)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_memory_of_earlier_shapes_is_released() -> None:
    command = [sys.executable, "-c", MANY_EDITS]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert int(done.stdout) < 1.5 * (4 * 600 * 9600)  # of 1 with, 2 on the heap


def test_rows_from_a_batch_on_can_be_dropped() -> None:
    """As after a resume from an earlier batch."""
    series = TimeSeries(1, 8)
    for step in range(20):
        series.add(step, np.array([step]))
    assert series.stride == 4
    series.drop_from(10)
    assert series.steps.tolist() == [3, 7]  # that of 8 to 11 includes dropped batches
    series.add(10, np.array([100.0]))
    assert series.rows[:, 0].tolist() == [1.5, 5.5, 100.0]


def test_a_gap_is_filled_and_nothing_known_is_changed() -> None:
    """As after a cut of the network."""
    series, kept = TimeSeries(1, 64), TimeSeries(1, 64)
    for step in range(40):
        kept.add(step, np.array([step]))
        if not 10 < step < 25:
            series.add(step, np.array([-step]))
    series.fill_gap(10, kept.steps, kept.weights, kept.rows)
    expected = [step if 10 < step < 25 else -step for step in range(40)]
    assert series.rows[:, 0].tolist() == expected
    series.fill_gap(39, kept.steps, kept.weights, kept.rows)
    assert series.length == 40
    late = TimeSeries(1, 64)
    late.add(10, np.array([0.0]))
    late.fill_gap(10, kept.steps, kept.weights, kept.rows)  # nothing has arrived since
    assert late.steps.tolist() == list(range(10, 40))


def test_a_filled_series_stays_bounded() -> None:
    series, kept = TimeSeries(1, 32), TimeSeries(1, 32)
    for step in range(64):
        kept.add(step, np.array([step]))
    for step in [*range(5), *range(60, 80)]:
        series.add(step, np.array([step]))
    series.fill_gap(4, kept.steps, kept.weights, kept.rows)
    assert series.length <= 32
    assert (np.diff(series.steps) > 0).all()
