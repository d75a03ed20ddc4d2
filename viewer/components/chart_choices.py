"""The chart titles: drop-down lists that select what each chart shows, and the charts' menus."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..runs.metric_names import LOSS, group_by_family
from ..tab.chart_settings import LAYER_TITLES, MAX_SMOOTHING
from ..tab.tab_state import TabState
from .chart import Chart
from .html_panel import HtmlDataPanel

__all__ = ["ChartChoicesPanel"]


class ChartChoicesPanel(HtmlDataPanel):
    """The choices of all charts, and the names of those that are made."""

    part = "charts"

    def __init__(self, tab: TabState, get_charts: Callable[[], Iterable[Chart]] = tuple) -> None:
        super().__init__(tab)
        self._get_charts = get_charts

    def content(self) -> dict[str, Any]:
        state, settings = self.tab.state, self.tab.chart_settings
        histories = None if state is None else state.histories
        metrics = group_by_family(() if histories is None else histories.metrics)
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
            ],
            "made": [chart.name for chart in self._get_charts()],
            **self._settings(),
        }

    def _settings(self) -> dict[str, Any]:
        """Return what the menus of the charts show."""
        settings, selection = self.tab.chart_settings, self.tab.run_selection
        return {
            "x_axis": settings.x_axis,
            "scales": dict(settings.scales),
            "smoothing": dict(settings.smoothing),
            "max_smoothing": MAX_SMOOTHING,
            "compared_run": selection.compared_run,
            "compared_name": selection.compared_name,
            "other_runs": [
                {"id": run, "label": name} for run, name in selection.comparable_names().items()
            ],
        }
