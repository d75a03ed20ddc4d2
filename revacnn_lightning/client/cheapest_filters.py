"""Which filters of a network are the cheapest to remove."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from revacnn_lightning.protocol.messages import Structure
from revacnn_lightning.protocol.prices import FilterPrices

__all__ = ["find_cheapest_filters", "loss_changes_or_estimates", "price_percentile_ranks"]


def loss_changes_or_estimates(prices: FilterPrices) -> np.ndarray:
    """Return the values by which the N filters are ranked, (N,); NaN is unknown.

    Until the change of every filter that can be measured is known, these are the estimates, and
    then the measured changes: the two have no common scale.
    """
    estimates, changes = prices.estimates.astype(np.float64), prices.changes.astype(np.float64)
    can_be_known = np.isfinite(estimates)
    can_be_known[[index for index in prices.refused if index < len(can_be_known)]] = False
    is_complete = can_be_known.any() and bool(np.isfinite(changes[can_be_known]).all())
    return changes if is_complete else estimates


def price_percentile_ranks(prices: FilterPrices) -> np.ndarray:
    """Return the share of the filters that are cheaper than each filter, 0 to 1, (N,).

    NaN is unknown.
    """
    values = loss_changes_or_estimates(prices)
    known = np.isfinite(values)
    ordered = np.sort(values[known])
    ranks = np.full(len(values), np.nan)
    ranks[known] = np.searchsorted(ordered, values[known]) / max(1, len(ordered) - 1)
    return ranks


def find_cheapest_filters(
    prices: FilterPrices,
    structure: Structure,
    layer_offsets: np.ndarray,
    count: int,
    excluded_layers: Sequence[str],
) -> list[tuple[str, int]]:
    """Return the layer and the id of the cheapest filters to remove, cheapest first.

    Coupled filters have one price and count once. Each layer keeps at least one filter.

    Args:
        prices: the prices of the filters of ``structure``.
        structure: the network.
        layer_offsets: the index of each layer's first filter among all filters, (layers + 1,).
        count: how many filters to return at most.
        excluded_layers: names of layers to leave out.
    """
    values = loss_changes_or_estimates(prices)
    taken: dict[int, int] = {}  # filters by layer
    seen: set[float] = set()
    found: list[tuple[str, int]] = []
    for index in np.argsort(values, kind="stable").tolist():
        value = float(values[index])
        if len(found) == count or np.isnan(value):
            break
        at = int(np.searchsorted(layer_offsets, index, side="right")) - 1
        layer = structure.layers[at]
        is_full = taken.get(at, 0) >= len(layer.filter_ids) - 1
        is_excluded = bool(layer.edit_refusal) or layer.name in excluded_layers
        if is_excluded or is_full or (value and value in seen):
            continue
        seen.add(value)
        taken[at] = taken.get(at, 0) + 1
        found.append((layer.name, layer.filter_ids[index - int(layer_offsets[at])]))
    return found
