"""Which layers are too wide or too narrow, by the prices and growth gains that a tab shows."""

from __future__ import annotations

import numpy as np

from revacnn_lightning.diagnostics.layer_width import judge_excess_width, judge_narrowness
from revacnn_lightning.diagnostics.verdicts import Verdict
from revacnn_lightning.protocol.messages import Structure

from .tab_state import TabState

__all__ = ["growth_gains", "verdicts_on_narrow_layers", "verdicts_on_wide_layers"]


def verdicts_on_wide_layers(tab: TabState, structure: Structure) -> dict[str, Verdict]:
    """Return the verdicts on layers with too many filters, while the tab shows their prices."""
    prices = tab.follower.filter_prices.newest if tab.shows_prices else None
    if prices is None or prices.version != structure.version:
        return {}
    found, first = [], 0
    for layer in structure.layers:
        last = first + len(layer.filter_ids)
        if not layer.edit_refusal:
            changes = prices.changes[first:last]
            found.append(judge_excess_width(layer.name, changes, prices.loss, len(prices.changes)))
        first = last
    return {verdict.layer: verdict for verdict in found if verdict is not None}


def growth_gains(tab: TabState, structure: Structure) -> np.ndarray:
    """Return the growth gain of each layer, NaN where unknown or not shown, (layers,)."""
    newest = tab.follower.growth.newest if tab.shows_prices else None
    if newest is None or newest.version != structure.version:
        return np.full(len(structure.layers), np.nan)
    refused = np.array([bool(layer.edit_refusal) for layer in structure.layers])
    return np.where(refused, np.nan, newest.gains)


def verdicts_on_narrow_layers(tab: TabState, structure: Structure) -> dict[str, Verdict]:
    """Return the verdicts on layers with too few filters; none of these layers is too wide."""
    gains, wide = growth_gains(tab, structure), verdicts_on_wide_layers(tab, structure)
    n_filters = sum(len(layer.filter_ids) for layer in structure.layers)
    found = [
        judge_narrowness(layer.name, float(gain), gains, n_filters)
        for layer, gain in zip(structure.layers, gains, strict=True)
        if layer.name not in wide
    ]
    return {verdict.layer: verdict for verdict in found if verdict is not None}
