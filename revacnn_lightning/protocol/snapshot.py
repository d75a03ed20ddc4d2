"""The statistics of a training batch, as they are published."""

from __future__ import annotations

import numpy as np
from msgspec import Struct, field

__all__ = ["Snapshot"]


class Snapshot(Struct, frozen=True, tag="snapshot"):
    """The statistics of one training batch, or of several: see ``ReVACNN(publish=...)``.

    ``values`` is float32 of shape (len(statistics), number of filters). Its columns are the filters
    of all layers of structure ``version``, layer by layer in forward order. NaN marks a statistic
    that was not recorded in this batch; ``sampling_intervals`` says how often each one is.

    If ``batch_count`` is above 1, ``values`` and ``loss`` are means over so many batches up to
    ``step``. ``maxima``, in the shape of ``values``, and ``max_loss`` are their maxima. Everything
    else is that of the last batch.

    In a training with several processes, ``values`` and ``loss`` are means over ``ranks`` of them,
    and maxima are those of all of these. 1: all is that of rank 0.
    """

    run: str
    version: int
    step: int  # batches trained since the start of fit; every micro-batch counts
    epoch: int
    batch_index: int  # within the epoch
    batches_per_epoch: int  # 0 if unknown
    max_epochs: int  # 0 if unknown
    time: float  # Unix time of the end of the batch, seconds
    loss: float | None
    learning_rates: list[float]
    batches_per_second: float
    statistics: list[str]
    values: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    metrics: dict[str, float] = field(default_factory=dict)  # logged by the module
    # Per statistic, the number of batches between two recordings. Empty: every batch.
    sampling_intervals: list[int] = field(default_factory=list)
    nonfinite_gradients: bool = False  # a batch produced inf or NaN gradients
    batch_count: int = 1
    first_step: int | None = None  # of the first of several batches; None: there is one
    max_loss: float | None = None  # None: there is one batch, or the loss is unknown
    maxima: np.ndarray | None = None  # None: there is one batch
    ranks: int = 1  # that the means are of
