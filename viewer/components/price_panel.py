"""The switch that colors the nodes by price, and the removal of the cheapest filters."""

from __future__ import annotations

from typing import Any

import numpy as np

from revacnn_lightning.protocol.prices import FilterPrices

from ..rendering.formatting import count_of
from .html_panel import HtmlDataPanel

__all__ = ["ColorByPricePanel"]

WAITING = "waiting for the next batches"


class ColorByPricePanel(HtmlDataPanel):
    """The switch that colors the nodes by the price of their removal, and how many are known."""

    part = "prices"

    def content(self) -> dict[str, Any]:
        tab = self.tab
        if not tab.shows_prices or tab.structure is None:
            return {"shown": False, "text": "", "refusal": ""}
        requests = tab.follower.filter_prices
        prices = requests.request_newest()
        refusal = tab.steering_refusal()
        if prices is None:
            awaited = requests.refused or tab.waiting_reason(WAITING)
            return {"shown": True, "text": awaited, "refusal": awaited}
        text = f"ranked only: {prices.note}" if prices.note else _progress(prices)
        return {"shown": True, "text": text, "refusal": refusal}


def _progress(prices: FilterPrices) -> str:
    """Return for example ``78 of 78 measured, in the last 1 640 batches; 2 cannot be``."""
    measured = int(np.isfinite(prices.changes).sum())
    text = f"{measured} of {len(prices.changes) - len(prices.refused)} measured"
    if prices.oldest >= 0:
        text += f", in the last {count_of(prices.step - prices.oldest + 1, 'batch')}"
    return f"{text}; {len(prices.refused)} cannot be" if prices.refused else text
