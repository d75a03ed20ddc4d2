"""The charts of the statistics pane, which are made when it is first opened."""

from __future__ import annotations

from bokeh.models import Column, ColumnDataSource

from ..tab.tab_state import TabState
from .chart import Chart
from .deferred_charts import OneByOneChartMaker
from .filter_history import FilterActivationChart, FilterGradientChart
from .layer_filters import FilterBarChart, FilterScatterChart

__all__ = ["SelectionChartsPane"]


class SelectionChartsPane:
    """The four charts of the selected layer and filter, made when the pane is first opened."""

    def __init__(self, tab: TabState, edit_markers: ColumnDataSource) -> None:
        self._tab = tab
        self._chart_maker = OneByOneChartMaker(
            {
                FilterBarChart.name: lambda: FilterBarChart(tab),
                FilterScatterChart.name: lambda: FilterScatterChart(tab),
                FilterGradientChart.name: lambda: FilterGradientChart(tab, edit_markers),
                FilterActivationChart.name: lambda: FilterActivationChart(tab, edit_markers),
            }
        )

    @property
    def chart_places(self) -> list[Column]:
        """What the template embeds; each receives one chart."""
        return self._chart_maker.chart_places

    @property
    def charts(self) -> list[Chart]:
        """The charts made so far."""
        return self._chart_maker.charts

    def make_shown_charts(self) -> list[Chart]:
        """Return the charts if the pane is open, and make them if they are needed for once."""
        if self._tab.pane != "statistics":
            return []
        while self._chart_maker.make_next() is not None:
            pass
        return self.charts
