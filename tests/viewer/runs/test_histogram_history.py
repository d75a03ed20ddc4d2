from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from revacnn_lightning.protocol.inspections import Histogram
from tests.viewer.fake_detail import FakeDetails
from viewer.runs.histogram_history import BINS, MAX_ROWS, HistogramHistory, LayerHistograms


def histogram(limit: float = 1.0, bins: int = 64) -> Histogram:
    return Histogram(np.ones(bins, np.float32), limit)


def test_a_long_history_is_thinned_and_keeps_the_first_and_the_newest() -> None:
    history = HistogramHistory()
    for step in range(1, 2001):
        history.add(step, histogram(limit=step))
        assert len(history.steps) <= MAX_ROWS
        assert history.steps[-1] == step == history.histograms[-1].limit
    assert history.steps[0] == 1
    assert len(history.steps) > MAX_ROWS / 4
    gaps = np.diff(history.steps)[:-1]
    assert gaps.max() <= 2 * gaps.min()


def test_the_same_batch_counts_once() -> None:
    history = HistogramHistory()
    for _ in range(3):
        history.add(5, histogram())
    assert history.steps == [5]


def test_all_rows_share_an_axis_that_holds_the_newest() -> None:
    history = HistogramHistory()
    for step, limit in enumerate([100.0, 1.0, 1.0, 2.0]):
        history.add(step, histogram(limit))
    assert history.axis_limit == 2.0
    shares = history.bin_shares()
    assert shares.shape == (4, BINS)
    np.testing.assert_allclose(shares.sum(axis=1), [0.02, 1, 1, 1], atol=1e-9)
    np.testing.assert_allclose(shares[3], 1 / BINS)
    assert shares[1][: BINS // 4 - 1].sum() == 0  # beyond its own limit


def test_zeros_are_a_peak_in_the_middle() -> None:
    history = HistogramHistory()
    counts = np.zeros(64, np.float32)
    counts[32] = 9
    history.add(0, Histogram(counts, 0.0))
    shares = history.bin_shares()[0]
    assert history.axis_limit == 0
    assert shares[BINS // 2 - 1 : BINS // 2 + 1].sum() == pytest.approx(1)


def test_an_invalid_histogram_is_ignored() -> None:
    detail = FakeDetails().detail("run", 0, 3, "conv1", [0, 1], 3, True, set(), None)
    histograms = LayerHistograms()
    broken = Histogram(np.full(64, np.nan, np.float32), 1.0)
    histograms.add(replace(detail, weight_histogram=broken, gradient_histogram=None))
    assert histograms.weights.steps == histograms.gradients.steps == []
    histograms.add(detail)
    assert histograms.weights.steps == histograms.gradients.steps == [3]
    assert histograms.revision == 2
