"""The charts of the statistics pane, which are made when it is first opened."""

from __future__ import annotations

from bokeh.models import Column, ColumnDataSource

from ..tab.tab_state import TabState
from .chart import Chart
from .chart_places import ChartPlaces
from .filter_history import FilterActivation, FilterGradient
from .layer_filters import FilterBars, FilterCloud

__all__ = ["StatisticsPane"]


class StatisticsPane:
    """Four figures that most tabs never show."""

    def __init__(self, tab: TabState, edit_markers: ColumnDataSource) -> None:
        self._tab = tab
        self._places = ChartPlaces(
            {
                FilterBars.name: lambda: FilterBars(tab),
                FilterCloud.name: lambda: FilterCloud(tab),
                FilterGradient.name: lambda: FilterGradient(tab, edit_markers),
                FilterActivation.name: lambda: FilterActivation(tab, edit_markers),
            }
        )

    @property
    def places(self) -> list[Column]:
        """What the template embeds; each receives one chart."""
        return self._places.places

    @property
    def charts(self) -> list[Chart]:
        """The charts made so far."""
        return self._places.charts

    def shown_charts(self) -> list[Chart]:
        """Return the charts if the pane is open, and make them if they are needed for once."""
        if self._tab.pane != "statistics":
            return []
        while self._places.make_next() is not None:
            pass
        return self.charts
