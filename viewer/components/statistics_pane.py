"""The charts of the statistics pane, which are made when it is first opened."""

from __future__ import annotations

from collections.abc import Callable

from bokeh.core.validation import silence
from bokeh.core.validation.warnings import EMPTY_LAYOUT
from bokeh.models import Column, ColumnDataSource

from ..tab.tab_state import TabState
from . import Component
from .filter_history import FilterActivation, FilterGradient
from .layer_filters import FilterBars, FilterCloud

__all__ = ["StatisticsPane"]

silence(EMPTY_LAYOUT)  # the places are empty until the pane is opened


class StatisticsPane:
    """Four figures that most tabs never show: they would delay the first picture of all.

    Attributes:
        places: what the template embeds; each receives one chart.
        charts: those made so far.
    """

    def __init__(self, tab: TabState, edit_markers: ColumnDataSource) -> None:
        self._tab = tab
        self._makers: dict[str, Callable[[], Component]] = {
            FilterBars.name: lambda: FilterBars(tab),
            FilterCloud.name: lambda: FilterCloud(tab),
            FilterGradient.name: lambda: FilterGradient(tab, edit_markers),
            FilterActivation.name: lambda: FilterActivation(tab, edit_markers),
        }
        self.places = [
            Column(name=f"{name}_place", sizing_mode="stretch_both") for name in self._makers
        ]
        self.charts: list[Component] = []

    def shown_charts(self) -> list[Component]:
        """Return the charts if the pane is open, and make them if they are needed for once."""
        if self._tab.pane != "statistics":
            return []
        if not self.charts:
            self.charts = [make() for make in self._makers.values()]
            for place, chart in zip(self.places, self.charts, strict=True):
                place.children = [chart.root]
        return self.charts
