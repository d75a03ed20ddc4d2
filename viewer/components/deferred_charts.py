"""Charts that are made later than the page: they would delay its first picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bokeh.core.validation import silence
from bokeh.core.validation.warnings import EMPTY_LAYOUT
from bokeh.models import Column

from .chart import Chart

__all__ = ["OneByOneChartMaker"]

silence(EMPTY_LAYOUT)  # the places are empty until their charts are made


class OneByOneChartMaker:
    """Makes charts one by one, each in a place that the page reserves for it.

    Args:
        makers: by the name of each chart, a function that makes it.

    Attributes:
        chart_places: the elements that the template embeds, named after their charts, with
            ``_place``.
        charts: the charts made so far.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Chart]]) -> None:
        self._makers = list(makers.values())
        self.chart_places = [
            Column(name=f"{name}_place", sizing_mode="stretch_both") for name in makers
        ]
        self.charts: list[Chart] = []

    def make_next(self) -> Chart | None:
        """Make the next chart and put it in its place; None if all are made."""
        n_made = len(self.charts)
        if n_made == len(self._makers):
            return None
        chart = self._makers[n_made]()
        self.chart_places[n_made].children = [chart.root]
        self.charts.append(chart)
        return chart
