"""The colors of the nodes where they do not stand for the gradient: prices, or a class."""

from __future__ import annotations

from typing import Any

import numpy as np

from revacnn_lightning.client.cheapest_filters import price_percentile_ranks

from ..tab.tab_state import TabState
from .network_data import node_means

__all__ = ["price_or_class_tones", "price_or_class_tones_key"]

STRONG_EFFECT = 2.0  # standard deviations, of the strongest color


def price_or_class_tones_key(tab: TabState) -> tuple[Any, ...]:
    """Return a key that changes whenever `price_or_class_tones` may change."""
    follower = tab.follower
    return (
        tab.shows_prices,
        follower.filter_prices.revision,
        tab.class_view.shown,
        follower.classes.revision,
    )


def price_or_class_tones(tab: TabState, first_filters: np.ndarray) -> dict[str, np.ndarray]:
    """Return the colors of the nodes where they stand for prices or a class, else {}.

    ``tone`` is the position in the color scale, 0 to 1, and ``colored_by`` the value that it stands
    for, each (nodes,). A node of several filters has their mean. Where a value is unknown, ``tone``
    is 0 and ``colored_by`` is NaN.

    Args:
        tab: the tab whose nodes are colored.
        first_filters: the index of the first filter of each node, (nodes,).
    """
    if not tab.shows_prices and tab.class_view.shown is None:
        return {}
    found = _price_tones(tab) if tab.shows_prices else _class_tones(tab)
    if found is None or not tab.playback.is_live:
        n = len(first_filters)
        return {"tone": np.zeros(n, np.float32), "colored_by": np.full(n, np.nan, np.float32)}
    tones, values = (values.astype(np.float32) for values in found)
    return {
        "tone": node_means(np.nan_to_num(tones, nan=0.0), first_filters),
        "colored_by": node_means(values, first_filters),
    }


def _price_tones(tab: TabState) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the ranks of the prices, the cheapest is 0, and the measured changes of the loss."""
    prices = tab.follower.filter_prices.newest
    return None if prices is None else (price_percentile_ranks(prices), prices.changes)


def _class_tones(tab: TabState) -> tuple[np.ndarray, np.ndarray] | None:
    """Return how far each filter is above its mean on the shown class, in standard deviations."""
    answers = tab.follower.classes.answers
    if answers is None or answers.class_index != tab.class_view.shown:
        return None
    return np.clip(answers.effects / STRONG_EFFECT, 0, 1), answers.effects
