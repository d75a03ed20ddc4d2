"""What removing filters costs: the predicted change of the loss."""

from __future__ import annotations

import numpy as np
from msgspec import Struct, field

__all__ = ["FilterPrices", "RemovalPrice"]


class RemovalPrice(Struct, frozen=True):
    """The change of the loss on a few training images if filters were removed now.

    It is measured by forwards of the network with the outgoing weights of these filters set to
    zero, in evaluation mode. ``error`` is the standard error of ``change`` over groups of images;
    NaN for a single group.
    """

    change: float  # negative: the loss falls
    error: float
    loss: float  # before, on the same images
    images: int  # 0: unknown
    step: int  # the newest batch whose images these are


class FilterPrices(Struct, frozen=True, tag="filter_prices"):
    """The prices of all N filters of the network, structure ``version``: the layers side by side.

    ``estimates`` rank them by the statistic ``price`` of the last recorded batches, with coupled
    filters added up; they are in the unit of the loss, but no prediction of it. ``changes`` and
    their ``errors`` are measured as those of a `RemovalPrice`, of the filters that a viewer has
    pointed at first, then of the cheapest. NaN is unknown.
    """

    run: str
    version: int
    step: int
    estimates: np.ndarray  # float32 (N,)
    changes: np.ndarray  # float32 (N,)
    errors: np.ndarray  # float32 (N,)
    loss: float = float("nan")  # before, on the images of the newest measurement
    images: int = 0
    batches: int = 0  # that the estimates are the mean of
    note: str = ""  # why no change can be measured
    oldest: int = -1  # the batch of the oldest of the measured changes; -1: there is none
    refused: list[int] = field(default_factory=list)  # filters that cannot be measured
