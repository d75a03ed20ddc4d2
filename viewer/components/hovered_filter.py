"""The newest numbers of the filter under the pointer, for its tooltip."""

from __future__ import annotations

from typing import Any

from .html_panel import HtmlDataPanel

__all__ = ["HoveredFilterStatistics"]

STATISTICS = ("gradient", "activation")


class HoveredFilterStatistics(HtmlDataPanel):
    """The newest statistics of the filter under the pointer, which its tooltip shows."""

    part = "hovered_filter"

    def content(self) -> dict[str, Any]:
        state, hovered = self.tab.state, self.tab.hovered
        layer = None if state is None or hovered is None else state.layer_index(hovered.layer)
        if state is None or hovered is None or layer is None:
            return {}
        ids = state.layer_ids(layer)
        if hovered.filter_id not in ids:
            return {}
        index = ids.index(hovered.filter_id)
        values = {name: self.tab.layer_values(name, layer) for name in STATISTICS}
        numbers = {name: float(row[index]) for name, row in values.items() if index < len(row)}
        return {"layer": layer, "filter": index, **numbers}
