"""Which filters of a network are the cheapest to remove."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from revacnn_lightning.protocol.messages import Structure
from revacnn_lightning.protocol.prices import FilterPrices

__all__ = ["find_cheapest", "price_ranks", "ranking"]


def ranking(prices: FilterPrices) -> np.ndarray:
    """Return what the filters are ranked by, (N,); NaN is unknown.

    These are the measured changes once all filters have one that can be measured, and the estimates
    until then: the two have no common scale.
    """
    estimates, changes = prices.estimates.astype(np.float64), prices.changes.astype(np.float64)
    can_be_known = np.isfinite(estimates)
    can_be_known[[index for index in prices.refused if index < len(can_be_known)]] = False
    is_complete = can_be_known.any() and bool(np.isfinite(changes[can_be_known]).all())
    return changes if is_complete else estimates


def price_ranks(prices: FilterPrices) -> np.ndarray:
    """Return the share of filters that are cheaper than each one, 0 to 1, (N,); NaN is unknown."""
    values = ranking(prices)
    known = np.isfinite(values)
    ordered = np.sort(values[known])
    ranks = np.full(len(values), np.nan)
    ranks[known] = np.searchsorted(ordered, values[known]) / max(1, len(ordered) - 1)
    return ranks


def find_cheapest(
    prices: FilterPrices,
    structure: Structure,
    offsets: np.ndarray,
    count: int,
    staged: Sequence[str],
) -> list[tuple[str, int]]:
    """Return the layer and the id of the cheapest filters, cheapest first.

    Coupled filters have one price and count once. Each layer keeps a filter.

    Args:
        prices: of the filters of ``structure``.
        structure: the network.
        offsets: index of each layer's first filter, (layers + 1,).
        count: how many filters.
        staged: layers that are left out, because changes of them are staged.
    """
    values = ranking(prices)
    taken: dict[int, int] = {}  # filters by layer
    seen: set[float] = set()
    found: list[tuple[str, int]] = []
    for index in np.argsort(values, kind="stable").tolist():
        value = float(values[index])
        if len(found) == count or np.isnan(value):
            break
        at = int(np.searchsorted(offsets, index, side="right")) - 1
        layer = structure.layers[at]
        is_full = taken.get(at, 0) >= len(layer.filter_ids) - 1
        if layer.edit_refusal or layer.name in staged or is_full or (value and value in seen):
            continue
        seen.add(value)
        taken[at] = taken.get(at, 0) + 1
        found.append((layer.name, layer.filter_ids[index - int(offsets[at])]))
    return found
