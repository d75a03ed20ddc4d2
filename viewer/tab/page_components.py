"""The components of a page, grouped by when they are updated."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..components import Component
from ..components.address import Address
from ..components.chart_choices import ChartChoices
from ..components.chart_table import ChartTable
from ..components.controls import ControlsPanel
from ..components.edit_markers import EditMarkers
from ..components.filter_inspection import FilterInspectionPane
from ..components.header import Header
from ..components.histograms import HistogramPane
from ..components.hovered_filter import HoveredFilter
from ..components.layer_chart import LayerChart
from ..components.layer_panel import LayerPanel
from ..components.layer_table import LayerTable
from ..components.layer_views import InputImage, make_layer_views
from ..components.learning_rate import LearningRateChart
from ..components.metric_chart import MetricChart
from ..components.module_marks import ModuleMarks
from ..components.network import NetworkView
from ..components.network_ends import NetworkEnds
from ..components.price_panel import PricePanel
from ..components.selection_panel import SelectionPanel
from ..components.staging_bar import ChangeListPanel, ReplyPanel, StagingBar
from ..components.statistics_pane import StatisticsPane
from ..components.time_chart import TimeChart
from ..components.timeline import Timeline
from .tab_state import TabState

__all__ = ["PageComponents"]

HTML_PANELS: tuple[Callable[[TabState], Component], ...] = (
    Address,
    Header,
    ControlsPanel,
    SelectionPanel,
    LayerPanel,
    HoveredFilter,
    StagingBar,
    ReplyPanel,
    ChangeListPanel,
    Timeline,
    ChartChoices,
    PricePanel,
)


class PageComponents:
    """All components of one page, in the order in which they are created.

    Attributes:
        network: the network view.
        primary: components that are updated with every frame.
        images: components that show images of the selected layer and filter, and the table of
            layers.
        charts: the charts that are always visible.
        statistics: the charts of the statistics pane.
    """

    def __init__(self, tab: TabState) -> None:
        markers = EditMarkers(tab)
        self.network = NetworkView(tab)
        self.primary: list[Component] = [self.network, markers]
        self.primary += [ModuleMarks(tab, self.network), *(panel(tab) for panel in HTML_PANELS)]
        self.images: list[Component] = [
            NetworkEnds(tab, self.network),
            InputImage(tab),
            *make_layer_views(tab),
            FilterInspectionPane(tab),
            HistogramPane(tab),
            LayerTable(tab),
        ]
        self.charts: list[Component] = [
            MetricChart(tab, markers.source),
            LearningRateChart(tab, markers.source),
            LayerChart(tab, markers.source, 0),
            LayerChart(tab, markers.source, 1),
        ]
        self.statistics = StatisticsPane(tab, markers.source)
        self.primary.append(ChartTable(tab, self._time_charts))
        self._last_chart = 0  # index of the chart that was updated last

    def __iter__(self) -> Iterator[Component]:
        yield from self.primary
        yield from self.images
        yield from self.charts
        yield from self.statistics.charts

    def shown_charts(self) -> list[Component]:
        """Return the charts that are visible."""
        return [*self.charts, *self.statistics.shown_charts()]

    def update_next_chart(self) -> bool:
        """Update the next visible chart that has new data. Return False if none has."""
        charts = self.shown_charts()
        for _ in charts:
            self._last_chart = (self._last_chart + 1) % len(charts)
            if charts[self._last_chart].update():
                return True
        return False

    def _time_charts(self) -> list[TimeChart]:
        charts = [*self.charts, *self.statistics.charts]
        return [chart for chart in charts if isinstance(chart, TimeChart)]
