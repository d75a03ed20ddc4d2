"""The components of a page, grouped by when they are updated."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bokeh.models import Column

from ..components import Component
from ..components.address import UrlParametersSender
from ..components.automatic_panel import AutomaticEditsPanel
from ..components.change_list import EditsAndAlertsPanel, ReplyPanel
from ..components.chart import Chart
from ..components.chart_choices import ChartChoicesPanel
from ..components.chart_export import ChartCsvExport
from ..components.class_colors import ColorByClassPanel
from ..components.class_pane import ClassMatrixPane
from ..components.controls import ControlsPanel
from ..components.deferred_charts import OneByOneChartMaker
from ..components.edit_markers import EditMarkers
from ..components.filter_inspection import FilterInspectionPane
from ..components.growth_panel import GrowthGainPanel
from ..components.header import Header
from ..components.histograms import HistogramsOverTimePane
from ..components.hovered_filter import HoveredFilterStatistics
from ..components.input_output_view import InputOutputView
from ..components.layer_chart import LayerChart
from ..components.layer_panel import LayerPanel
from ..components.layer_table import LayerTable
from ..components.layer_views import InputImage, make_embedding_views
from ..components.learning_rate import LearningRateChart
from ..components.metric_chart import MetricChart
from ..components.module_marks import ModuleMarks
from ..components.network import NetworkView
from ..components.price_panel import ColorByPricePanel
from ..components.rank_panel import RankStatisticsPanel
from ..components.selection_panel import SelectionPanel
from ..components.staging_bar import StagingBar
from ..components.statistics_pane import SelectionChartsPane
from ..components.time_chart import TimeChart
from ..components.timeline import Timeline
from ..components.trial_panel import CurrentTrialPanel
from ..components.verdict_panel import EstablishedVerdictsPanel
from ..rendering.frame_codec import PagePartContent
from .tab_state import TabState

__all__ = ["PageComponents"]

HTML_PANELS: tuple[Callable[[TabState], Component], ...] = (
    UrlParametersSender,
    Header,
    ControlsPanel,
    SelectionPanel,
    LayerPanel,
    HoveredFilterStatistics,
    StagingBar,
    CurrentTrialPanel,
    ReplyPanel,
    EditsAndAlertsPanel,
    Timeline,
    ColorByPricePanel,
    ColorByClassPanel,
    AutomaticEditsPanel,
    GrowthGainPanel,
    RankStatisticsPanel,
    EstablishedVerdictsPanel,
)


class PageComponents:
    """All components of one page, in the order in which they are created.

    Attributes:
        network: the network view.
        drawings: components that are updated with every frame.
        markers: the markers of edits in all charts; a change repaints every chart.
        panels: texts and controls. Updated less often where only statistics are new: nobody reads
            ten numbers a second.
        images: components that show images of the selected layer and filter, and the table of
            layers.
        footer: the charts that are always visible, made one by one after the first picture.
        statistics: the charts of the statistics pane.
    """

    def __init__(self, tab: TabState) -> None:
        self.markers = markers = EditMarkers(tab)
        self.network = NetworkView(tab)
        self.drawings: list[Component] = [self.network, markers, ModuleMarks(tab, self.network)]
        self.panels: list[Component] = [panel(tab) for panel in HTML_PANELS]
        self.images: list[Component] = [
            InputOutputView(tab, self.network),
            InputImage(tab),
            *make_embedding_views(tab),
            FilterInspectionPane(tab),
            HistogramsOverTimePane(tab),
            ClassMatrixPane(tab),
            LayerTable(tab),
        ]
        self.footer = OneByOneChartMaker(
            {
                "loss": lambda: MetricChart(tab, markers.source),
                "learning_rate": lambda: LearningRateChart(tab, markers.source),
                "layers_0": lambda: LayerChart(tab, markers.source, 0),
                "layers_1": lambda: LayerChart(tab, markers.source, 1),
            }
        )
        self.statistics = SelectionChartsPane(tab, markers.source)
        self.panels += [
            ChartChoicesPanel(tab, self._charts),
            ChartCsvExport(tab, self._time_charts),
        ]
        self._tab = tab
        self._last_chart = 0  # index of the chart that was updated last

    @property
    def panels_and_drawings(self) -> list[Component]:
        """The drawings and the panels: what an edit or an action changes."""
        return [*self.drawings, *self.panels]

    def __iter__(self) -> Iterator[Component]:
        yield from self.panels_and_drawings
        yield from self.images
        yield from self._charts()

    @property
    def chart_places(self) -> list[Column]:
        """The places of the charts in the page."""
        return [*self.footer.chart_places, *self.statistics.chart_places]

    def frame_parts(self) -> Iterator[PagePartContent]:
        """Yield what frames consist of."""
        for component in self:
            yield from getattr(component, "panels", ())
            if isinstance(component.root, PagePartContent):
                yield component.root

    def shown_charts(self) -> list[Chart]:
        """Return the charts that are visible."""
        return [*self.footer.charts, *self.statistics.make_shown_charts()]

    def update_next_chart(self) -> bool:
        """Make the next chart that is missing, or update the next one that has new data.

        Return False if there is none.
        """
        if self._has_curves():
            made = self.footer.make_next()
            if made is not None:
                made.update()
                return True
        charts = self.shown_charts()
        for _ in charts:
            self._last_chart = (self._last_chart + 1) % len(charts)
            if charts[self._last_chart].update():
                return True
        return False

    def _has_curves(self) -> bool:
        """Return whether there is anything to draw: a chart without warns of its empty axes."""
        state = self._tab.state
        return state is not None and state.histories.scalars.length > 0

    def _charts(self) -> list[Chart]:
        return [*self.footer.charts, *self.statistics.charts]

    def _time_charts(self) -> list[TimeChart]:
        return [chart for chart in self._charts() if isinstance(chart, TimeChart)]
