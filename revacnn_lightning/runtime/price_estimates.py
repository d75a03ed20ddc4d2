"""The statistic ``price`` of what is removed together, so that filters of a network are ranked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.telemetry.unit_layers import UnitLayer, group_count, input_count

__all__ = ["WINDOW", "RecentFilterPrices", "root_sum_square_of_coupled_prices"]

WINDOW = 10  # recorded batches


class RecentFilterPrices:
    """The statistic ``price`` over the last `WINDOW` batches.

    A single batch is noisy, and many batches are those of other weights.

    Attributes:
        batches: the number of batches that were added so far.
    """

    def __init__(self) -> None:
        self.batches = 0
        self._squares: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self._squares)

    def add(self, prices: np.ndarray, batches: int = 1) -> None:
        """Add the prices of a batch, or the mean of several, (N,); NaN where not measured."""
        if self._squares and self._squares[0].shape != prices.shape:
            self._squares.clear()  # of another structure
            self.batches = 0
        self.batches += batches
        self._squares = [*self._squares[1 - WINDOW :], np.square(prices, dtype=np.float64)]

    def root_mean_square(self) -> np.ndarray:
        """Return the root of the mean square of each filter, (N,); NaN if it was never measured."""
        squares = np.array(self._squares)
        measured = np.isfinite(squares)
        total = np.where(measured, squares, 0).sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sqrt(total / measured.sum(0))


def root_sum_square_of_coupled_prices(
    prices: np.ndarray,
    layers: Sequence[str],
    widths: Sequence[int],
    channel_groups: ChannelGroups,
    model: nn.Module,
) -> np.ndarray:
    """Return the price of removing each filter with all filters that are coupled with it, (N,).

    It is the root of the sum of the squared prices of the coupled filters, as if what they
    contribute to the loss of an image were independent. A layer that is only read by a depthwise
    conv contributes nothing of its own: the maps behind that conv are what the next layer loses.

    Args:
        prices: the prices of the filters of all layers on their own, (N,); NaN if unknown.
        layers: the names of the layers.
        widths: the number of filters of each layer.
        channel_groups: the channel groups of ``model``.
        model: the network.
    """
    starts = np.cumsum([0, *widths])
    group_of = np.full(len(prices), -1)
    counts = np.ones(len(prices), bool)
    for layer, start, stop in zip(layers, starts[:-1], starts[1:], strict=True):
        channels = channel_groups.filters.get(layer)
        if channels is not None and len(channels) == stop - start:
            group_of[start:stop] = channel_groups.group_of_each(channels)
            counts[start:stop] = not _is_only_passed_on(layer, channel_groups, model)
    known = group_of >= 0
    counted = known & counts
    squares = np.square(np.nan_to_num(prices[counted]), dtype=np.float64)
    size = int(group_of.max(initial=-1)) + 1
    total = np.sqrt(np.bincount(group_of[counted], squares, minlength=size))
    estimates = prices.astype(np.float64)
    estimates[known] = total[group_of[known]]
    estimates[np.isnan(prices)] = np.nan
    return estimates


def _is_only_passed_on(layer: str, channel_groups: ChannelGroups, model: nn.Module) -> bool:
    """Return whether only depthwise convs read a layer, and thereby keep its channels apart."""
    readers = [
        model.get_submodule(reader) for name, reader in channel_groups.edges if name == layer
    ]
    return bool(readers) and all(
        isinstance(reader, UnitLayer) and 1 < group_count(reader) == input_count(reader)
        for reader in readers
    )
