"""The titles of the charts, from which a person chooses what they show."""

from __future__ import annotations

from typing import Any

from ..runs.metric_names import LOSS, families
from ..tab.chart_settings import LAYER_TITLES
from .html_panel import HtmlPanel

__all__ = ["ChartChoices"]


class ChartChoices(HtmlPanel):
    part = "charts"

    def content(self) -> dict[str, Any]:
        state, charts = self.tab.state, self.tab.charts
        metrics = families(state.histories.metrics if state is not None else ())
        words = {name: "Loss" if name == LOSS else name.capitalize() for name in metrics}
        known = {
            name: title
            for name, title in LAYER_TITLES.items()
            if state is None or name in charts.layers or state.histories.layers[name].length
        }
        return {
            "charts": [
                {"current": current, "options": list(options.items())}
                for current, options in [(charts.metric, words)]
                + [(current, known) for current in charts.layers]
            ]
        }
