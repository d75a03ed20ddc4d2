"""Chart of the learning rate of every parameter group."""

from __future__ import annotations

import numpy as np
from bokeh.core.properties import without_property_validation
from bokeh.models import ColumnDataSource, DataRange1d

from ..rendering.palette import Palette
from ..tab.tab_state import TabState
from .chart import VALUE_AND_BATCH, Chart, color_ramp, hover_tool

__all__ = ["LearningRateChart"]

MAX_GROUPS = 8  # parameter groups drawn


class LearningRateChart(Chart):
    """One line per distinct learning rate; groups with equal rates share a line."""

    name = "learning_rate"

    def __init__(self, tab: TabState, edit_markers: ColumnDataSource) -> None:
        # The axis starts at zero, so that a small decay does not look like a collapse.
        super().__init__(tab, edit_markers, y_range=DataRange1d(start=0))
        self.source = ColumnDataSource({"step": [], "rate": [], "color": []})
        self._colors: list[str] = []
        lines = self.root.multi_line(
            "step", "rate", source=self.source, line_color="color", line_width=2
        )
        self.root.add_tools(hover_tool(lines, *VALUE_AND_BATCH, line_policy="nearest"))
        self.restyle(tab.palette)

    def restyle(self, palette: Palette) -> None:
        super().restyle(palette)
        self._colors = color_ramp((palette.green, palette.blue), MAX_GROUPS)
        self._shown_key = ()

    @without_property_validation
    def update(self) -> bool:
        state = self.tab.state
        if state is None:
            return False
        rates = state.histories.learning_rates
        if not self.has_changed(state, rates.length, rates.stride, rates.width):
            return False
        values = rates.rows[:, :MAX_GROUPS].astype(float)
        distinct = [
            k for k in range(values.shape[1])
            if not any(np.array_equal(values[:, k], values[:, j], equal_nan=True) for j in range(k))
        ]  # fmt: skip
        steps = rates.steps.copy()
        self.source.data = {
            "step": [steps for _ in distinct],
            "rate": [values[:, k].copy() for k in distinct],
            "color": [self._colors[k] for k in range(len(distinct))],
        }
        return True
