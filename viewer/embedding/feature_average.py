"""Averages what changes with every batch, so that a layout of it has something to follow.

The training already averages gradients over its last 20 batches. But several times as many pass
between two details, so that the layout would jump all the same; and of maps it averages none.
"""

from __future__ import annotations

import numpy as np

from revacnn_lightning.diagnostics.degenerate import unit_rows

__all__ = ["REMEMBERED", "FeatureAverage"]

REMEMBERED = 20  # details of a layer: ten seconds at two a second


class FeatureAverage:
    """A moving average of the features of a layer's filters. Rows follow filters through edits.

    Only directions count, as everywhere in the layouts: a batch with large gradients says no
    more than one with small ones. What is not finite is passed on as it is, and not remembered;
    a filter is all zeros only after it was so as long as anything is remembered.
    """

    def __init__(self) -> None:
        self._ids = np.zeros(0, np.int64)
        self._mean = np.zeros((0, 0), np.float32)  # (n, d)
        self._count = np.zeros(0, np.int64)  # how often each was seen, up to REMEMBERED
        self._silent = np.zeros(0, np.int64)  # how often in a row it was all zeros

    def add(self, ids: np.ndarray, features: np.ndarray) -> np.ndarray:
        """The average with these ``features`` (n, d) of the filters ``ids`` (n,), float32 (n, d).

        Starts anew where d is another than before.
        """
        finite = np.isfinite(features).all(axis=1)
        new = np.zeros(features.shape, np.float32)
        new[finite] = unit_rows(features[finite])
        self._follow(ids, features.shape[1])
        zero = ~new.any(axis=1)
        self._silent = np.where(zero, self._silent + 1, 0)
        self._count = np.minimum(self._count + 1, REMEMBERED)
        self._mean += (new - self._mean) / self._count[:, None]
        self._mean[self._silent >= self._count] = 0.0
        return np.where(finite[:, None], self._mean, features).astype(np.float32)

    def _follow(self, ids: np.ndarray, dimensions: int) -> None:
        """Bring the rows into the order of ``ids``; new filters begin with nothing."""
        mean, count, silent = self._mean, self._count, self._silent
        n = len(ids)
        self._mean = np.zeros((n, dimensions), np.float32)
        self._count, self._silent = np.zeros(n, np.int64), np.zeros(n, np.int64)
        if mean.shape[1] == dimensions:
            _, here, there = np.intersect1d(ids, self._ids, return_indices=True)
            self._mean[here] = mean[there]
            self._count[here], self._silent[here] = count[there], silent[there]
        self._ids = np.asarray(ids, np.int64).copy()
