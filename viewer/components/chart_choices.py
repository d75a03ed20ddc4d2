"""The chart titles: drop-down lists that select what each chart shows."""

from __future__ import annotations

from typing import Any

from ..runs.metric_names import LOSS, families
from ..tab.chart_settings import LAYER_TITLES
from .html_panel import HtmlPanel

__all__ = ["ChartChoices"]


class ChartChoices(HtmlPanel):
    part = "charts"

    def content(self) -> dict[str, Any]:
        state, settings = self.tab.state, self.tab.chart_settings
        histories = None if state is None else state.histories
        metrics = families(() if histories is None else histories.metrics)
        metric_titles = {name: "Loss" if name == LOSS else name.capitalize() for name in metrics}
        layer_titles = {
            name: title
            for name, title in LAYER_TITLES.items()
            if histories is None
            or name in settings.layer_statistics
            or histories.layers[name].length
        }
        charts = [(settings.metric, metric_titles)]
        charts += [(current, layer_titles) for current in settings.layer_statistics]
        return {
            "charts": [
                {"current": current, "options": list(options.items())}
                for current, options in charts
            ]
        }
