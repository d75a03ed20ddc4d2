"""Histograms of a layer's weights and gradients over the batches since it was opened."""

from __future__ import annotations

import numpy as np

from revacnn_lightning.protocol.inspections import Histogram, LayerDetail

__all__ = ["HistogramHistory", "LayerHistograms"]

MAX_ROWS = 64
BINS = 80  # of the common axis


class HistogramHistory:
    """Histograms over time, thinned so that they always cover the whole time.

    Attributes:
        steps: the batch of each histogram.
        histograms: oldest first.
        stride: only every so many histograms one is kept.
    """

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.histograms: list[Histogram] = []
        self.stride = 1
        self._n_skipped = 0

    def add(self, step: int, histogram: Histogram) -> None:
        """Add the histogram of a batch. The newest is always kept, in the last row."""
        if self.steps and step <= self.steps[-1]:
            return  # of the same batch: the run is paused
        self._n_skipped += 1
        if len(self.steps) > 1 and self._n_skipped < self.stride:
            self.steps.pop()
            self.histograms.pop()
        else:
            self._n_skipped = 0
        self.steps.append(step)
        self.histograms.append(histogram)
        if len(self.steps) > MAX_ROWS:
            self.stride *= 2
            del self.steps[-2::-2], self.histograms[-2::-2]

    @property
    def axis_limit(self) -> float:
        """Half the width of the common axis around 0, which holds the newest histogram whole.

        Earlier and much wider ones do not extend it.
        """
        limits = [histogram.limit for histogram in self.histograms]
        return max(limits[-1], float(np.median(limits))) if limits else 0.0

    def bin_shares(self) -> np.ndarray:
        """Return the share of the values in each of `BINS` bins of the axis, (rows, BINS)."""
        limit = self.axis_limit or 1.0
        edges = np.linspace(-limit, limit, BINS + 1)
        return np.array([_shares(one, limit, edges) for one in self.histograms]).reshape(-1, BINS)


class LayerHistograms:
    """The histograms of one layer; ``revision`` counts what was added."""

    def __init__(self) -> None:
        self.weights = HistogramHistory()
        self.gradients = HistogramHistory()
        self.revision = 0

    def add(self, detail: LayerDetail) -> None:
        """Add the histograms of a detail, as far as it has some."""
        self.revision += 1
        for history, histogram in (
            (self.weights, detail.weight_histogram),
            (self.gradients, detail.gradient_histogram),
        ):
            if histogram is not None and _is_valid(histogram):
                history.add(detail.step, histogram)


def _is_valid(histogram: Histogram) -> bool:
    counts = histogram.counts
    has_limit = np.isfinite(histogram.limit) and histogram.limit >= 0
    return bool(counts.ndim == 1 and len(counts) and has_limit and np.isfinite(counts).all())


def _shares(histogram: Histogram, limit: float, edges: np.ndarray) -> np.ndarray:
    """Return the shares of one histogram in the bins of another axis, float (bins,)."""
    counts = np.maximum(histogram.counts, 0).astype(np.float64)
    own = max(histogram.limit, limit * 1e-3)  # all values are zero: a narrow peak
    below = np.concatenate([[0.0], np.cumsum(counts)]) / max(counts.sum(), 1.0)
    at_edges = np.interp(edges, np.linspace(-own, own, len(counts) + 1), below)
    return np.diff(at_edges)
