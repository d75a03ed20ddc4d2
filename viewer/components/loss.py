"""The loss over the batches: raw and smoothed, with the validation losses the module logs."""

from __future__ import annotations

import numpy as np
from bokeh.core.properties import value, without_property_validation
from bokeh.models import ColumnDataSource, Legend, LegendItem

from ..palette import Palette
from ..run_state import RunState
from ..tab import Tab
from .chart import Chart, smooth

__all__ = ["LossChart"]


class LossChart(Chart):
    title = "Loss"
    name = "loss"

    def __init__(self, tab: Tab, marks: ColumnDataSource) -> None:
        super().__init__(tab, marks, y_axis_type="log")
        empty = np.zeros(0)
        self.source = ColumnDataSource({"step": empty, "loss": empty, "smooth": empty})
        self.validation = ColumnDataSource({"step": empty, "loss": empty})
        self._raw = self.root.line(
            "step", "loss", source=self.source, line_width=1, line_alpha=0.28
        )
        self._line = self.root.line("step", "smooth", source=self.source, line_width=2)
        self._val = self.root.line("step", "loss", source=self.validation, line_width=2)
        self._dots = self.root.scatter("step", "loss", source=self.validation, size=4)
        self._legend_item = LegendItem(
            label=value("val"), renderers=[self._val, self._dots], visible=False
        )
        self.root.add_layout(
            Legend(
                items=[LegendItem(label=value("train"), renderers=[self._line]), self._legend_item],
                orientation="horizontal",
                location="top_right",
            )
        )
        self.restyle(tab.palette)

    def restyle(self, palette: Palette) -> None:
        super().restyle(palette)
        for renderer in (self._raw, self._line):
            renderer.glyph.line_color = palette.blue
        self._val.glyph.line_color = palette.orange
        self._dots.glyph.line_color = self._dots.glyph.fill_color = palette.orange

    @without_property_validation
    def update(self) -> bool:
        state = self.tab.state
        if state is None or not self.is_new(state, state.scalars.length, state.scalars.stride):
            return False
        steps, loss = state.scalars.steps, state.scalars.rows[:, 0].astype(float)
        there = np.isfinite(loss)
        steps, loss = steps[there].copy(), loss[there]
        name, val_steps, val_loss = _validation_loss(state)
        self.use_log_scale(bool(np.all(loss > 0) and np.all(val_loss > 0)))
        self.source.data = {"step": steps, "loss": loss, "smooth": smooth(loss)}
        self.validation.data = {"step": val_steps, "loss": val_loss}
        self._legend_item.update(label=value(name or "val"), visible=bool(name))
        return True


def _validation_loss(state: RunState) -> tuple[str, np.ndarray, np.ndarray]:
    """The first logged metric that is a validation loss, with its name."""
    for name, series in sorted(state.metrics.items()):
        if "val" in name.lower() and "loss" in name.lower():
            values = series.rows[:, 0].astype(float)
            there = np.isfinite(values)
            return name, series.steps[there].copy(), values[there]
    return "", np.zeros(0), np.zeros(0)
