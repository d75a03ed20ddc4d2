"""Moving averages of features that differ with every batch, for stable projections.

The training averages gradients over its last 20 batches, but several times as many batches pass
between two layer details. Activation maps are not averaged by the training at all.
"""

from __future__ import annotations

import numpy as np

from revacnn_lightning.diagnostics.degenerate import normalize_rows

__all__ = ["WINDOW", "FilterFeatureMovingAverage"]

WINDOW = 20  # details: ten seconds at two per second


class FilterFeatureMovingAverage:
    """Moving average of the feature directions of a layer's filters, matched by filter id.

    Features are normalized first, so that a batch with large gradients has no larger weight. Rows
    that are not finite are passed through and not averaged. The average of a filter is zero only
    if its features have been zero for the whole window.
    """

    def __init__(self) -> None:
        self._ids = np.zeros(0, np.int64)
        self._mean = np.zeros((0, 0), np.float32)  # (n, d)
        self._count = np.zeros(0, np.int64)  # of averaged rows, at most WINDOW
        self._zero_streak = np.zeros(0, np.int64)  # consecutive rows of zeros

    def add_and_average(self, ids: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Return the average including ``features`` (n, d), float32 (n, d).

        A different d restarts the average.

        Args:
            ids: the ids of the filters, int64 (n,).
        """
        finite = np.isfinite(features).all(axis=1)
        new = np.zeros(features.shape, np.float32)
        new[finite] = normalize_rows(features[finite])
        self._match_rows(ids, features.shape[1])
        is_zero = ~new.any(axis=1)
        self._zero_streak = np.where(is_zero, self._zero_streak + 1, 0)
        self._count = np.minimum(self._count + 1, WINDOW)
        self._mean += (new - self._mean) / self._count[:, None]
        self._mean[self._zero_streak >= self._count] = 0.0
        return np.where(finite[:, None], self._mean, features).astype(np.float32)

    def _match_rows(self, ids: np.ndarray, dimensions: int) -> None:
        """Reorder the rows by ``ids``; rows of new filters are empty."""
        mean, count, zero_streak = self._mean, self._count, self._zero_streak
        n = len(ids)
        self._mean = np.zeros((n, dimensions), np.float32)
        self._count, self._zero_streak = np.zeros(n, np.int64), np.zeros(n, np.int64)
        if mean.shape[1] == dimensions:
            _, now, before = np.intersect1d(ids, self._ids, return_indices=True)
            self._mean[now] = mean[before]
            self._count[now], self._zero_streak[now] = count[before], zero_streak[before]
        self._ids = np.asarray(ids, np.int64).copy()
