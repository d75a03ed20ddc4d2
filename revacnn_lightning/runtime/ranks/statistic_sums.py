"""Sums of statistics over batches, in the form in which they are summed up over ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["RankMeans", "StatisticSums"]

SCALARS = 5  # sum and number of losses, batches with infinite gradients, batches, ranks


@dataclass(frozen=True)
class RankMeans:
    """The statistics of all ranks, over the batches since the last ones.

    Attributes:
        values: the means, float32 (S, N); NaN where no rank has recorded a value.
        maxima: the maxima, in the shape of ``values``.
        loss: the mean loss; None if unknown.
        max_loss: the largest loss of a batch and rank; None if unknown.
        nonfinite: whether a gradient of a rank was infinite or NaN.
        ranks: the number of ranks that have recorded these statistics.
    """

    values: np.ndarray
    maxima: np.ndarray
    loss: float | None
    max_loss: float | None
    nonfinite: bool
    ranks: int


class StatisticSums:
    """The sums of the statistics of one rank over its batches, float32.

    Args:
        rows: the number of statistics, S.
        columns: the number of filters, N.
        is_valid: False for a rank that has recorded none of these statistics and adds nothing.
    """

    def __init__(self, rows: int, columns: int, *, is_valid: bool = True) -> None:
        self._shape = rows, columns
        self.totals = np.zeros(self._shape, np.float32)
        self.counts = np.zeros(self._shape, np.float32)
        self._maxima = np.full(self._shape, -np.inf, np.float32)
        self._scalars = np.zeros(SCALARS, np.float32)
        self._scalars[4] = is_valid
        self._max_loss = -np.inf

    @property
    def batches(self) -> int:
        """How many batches were added."""
        return int(self._scalars[3])

    @property
    def losses(self) -> np.ndarray:
        """The sum of the losses of this rank, and how many there are, (2,)."""
        return self._scalars[:2]

    def means(self, first: int, count: int) -> np.ndarray:
        """Return the means of some columns, (S, count); NaN where nothing was recorded."""
        part = slice(first, first + count)
        with np.errstate(all="ignore"):
            means: np.ndarray = self.totals[:, part] / self.counts[:, part]
        return means

    def add(self, values: np.ndarray, loss: float | None, *, nonfinite: bool) -> None:
        """Add the values of a batch, (S, N); NaN where a statistic was not recorded."""
        is_recorded = ~np.isnan(values)
        with np.errstate(all="ignore"):  # infinite values are data
            np.add(self.totals, values, out=self.totals, where=is_recorded)
            np.fmax(self._maxima, values, out=self._maxima)
        self.counts += is_recorded
        self._scalars[2:4] += (nonfinite, 1)
        if loss is not None:
            self._scalars[:2] += (loss, 1)
            self._max_loss = np.fmax(self._max_loss, loss) if loss == loss else np.nan

    def to_tensors(self) -> tuple[Tensor, Tensor]:
        """Return what is added up over the ranks, and what the maximum is taken of."""
        sums = np.concatenate([self.totals.ravel(), self.counts.ravel(), self._scalars])
        # NaN does not survive a maximum in every backend; the sum of the losses keeps it.
        largest = np.nan_to_num(self._max_loss, nan=np.inf, posinf=np.inf, neginf=-np.inf)
        maxima = np.append(self._maxima.ravel(), np.float32(largest))
        return torch.from_numpy(sums), torch.from_numpy(maxima)

    @staticmethod
    def means_of(sums: Tensor, maxima: Tensor, rows: int) -> RankMeans:
        """Return the means of tensors that were added up over all ranks."""
        table, scalars = sums.numpy()[:-SCALARS], sums.numpy()[-SCALARS:]
        totals, counts = table.reshape(2, rows, -1) if rows else table.reshape(2, 0, 0)
        largest = maxima.numpy()
        with np.errstate(all="ignore"):
            values = totals / counts
            loss = float(scalars[0] / scalars[1]) if scalars[1] else None
        shown = largest[:-1].reshape(values.shape)
        return RankMeans(
            values=values,
            maxima=np.where(counts > 0, shown, np.nan).astype(np.float32),
            loss=loss,
            max_loss=None if loss is None else float(largest[-1] if loss == loss else np.nan),
            nonfinite=bool(scalars[2]),
            ranks=int(scalars[4]),
        )

    @staticmethod
    def select_rows(
        names: Sequence[str], values: np.ndarray, wanted_names: Sequence[str]
    ) -> np.ndarray:
        """Return the rows of the ``wanted_names``; NaN for those that are not in ``names``."""
        missing = np.full(values.shape[1], np.nan, np.float32)
        rows = [values[names.index(name)] if name in names else missing for name in wanted_names]
        return np.array(rows, np.float32).reshape(len(wanted_names), values.shape[1])
