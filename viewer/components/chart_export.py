"""The curves of a chart as a CSV table, for the page to save."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ..rendering.frame_codec import PagePartContent
from ..rendering.palette import Palette
from ..runs.run_state import RunState
from ..tab.tab_state import TabState
from .curves import Curve
from .time_chart import TimeChart

__all__ = ["ChartCsvExport"]

COLUMNS = ("run", "curve", "batch", "epoch", "seconds", "value")


class ChartCsvExport:
    """Sends the curves of a chart as CSV when the page requests it: as recorded, not smoothed.

    Args:
        tab: the tab that shows the charts.
        get_charts: returns the charts that can be saved.
    """

    def __init__(self, tab: TabState, get_charts: Callable[[], Iterable[TimeChart]]) -> None:
        self.tab = tab
        self.root = self.source = PagePartContent("chart_table")
        self._get_charts = get_charts
        self._sent_request = 0

    def update(self) -> bool:
        name, request = self.tab.chart_settings.saved_chart
        if request == self._sent_request:
            return False
        chart = next((each for each in self._get_charts() if each.name == name), None)
        if chart is None:
            return False
        self._sent_request = request
        self.source.data = {"chart": name, "request": request, "csv": self._table(chart)}
        return True

    def restyle(self, palette: Palette) -> None:
        """Do nothing: a table has no colors."""

    def _table(self, chart: TimeChart) -> str:
        """Return the curves of the shown run, and of the one that is laid over it."""
        selection, text = self.tab.run_selection, io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        if self.tab.state is not None:
            writer.writerows(_rows(self.tab.state, chart.curves(self.tab.state)))
        compared = selection.compared_state()
        if compared is not None:
            writer.writerows(_rows(compared, chart.curves(compared)))
        return text.getvalue()


def _rows(state: RunState, curves: Iterable[Curve]) -> Iterator[tuple[Any, ...]]:
    """Yield one row per value, curve by curve."""
    run, clock = state.connection.run, state.histories.clock
    for label, steps, values in curves:
        epochs, seconds = clock.epochs(steps), clock.seconds(steps)
        for k in np.flatnonzero(np.isfinite(values)):
            at = (f"{steps[k]:.0f}", f"{epochs[k]:.4f}", f"{seconds[k]:.2f}")
            yield (run, label, *at, f"{values[k]:.9g}")
