"""The switch that colors the nodes by price, and the removal of the cheapest filters."""

from __future__ import annotations

from typing import Any

import numpy as np

from .html_panel import HtmlPanel

__all__ = ["PricePanel"]

WAITING = "waiting for the next batches"


class PricePanel(HtmlPanel):
    """Says whether prices are shown, and how well they are known."""

    part = "prices"

    def content(self) -> dict[str, Any]:
        tab = self.tab
        if not tab.shows_prices or tab.structure is None:
            return {"shown": False, "text": "", "refusal": ""}
        requests = tab.follower.filter_prices
        prices = requests.mark_visible()
        refusal = tab.steering_refusal()
        if prices is None:
            awaited = requests.refused or tab.awaited(WAITING)
            return {"shown": True, "text": awaited, "refusal": awaited}
        measured, total = int(np.isfinite(prices.changes).sum()), len(prices.changes)
        text = f"{measured} of {total} measured"
        if prices.note:
            text = f"ranked only: {prices.note}"
        return {"shown": True, "text": text, "refusal": refusal}
