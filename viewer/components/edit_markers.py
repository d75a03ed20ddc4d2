"""The markers that all charts share: the edits of the network, and the shown past batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource

from ..rendering.formatting import format_count
from ..rendering.palette import Palette
from ..tab.tab_state import TabState
from .time_axis import x_values

__all__ = ["EditMarkers"]


class EditMarkers:
    """The data source of the vertical markers that all charts draw. It has no figure."""

    def __init__(self, tab: TabState) -> None:
        self.tab = tab
        self.root = self.source = ColumnDataSource(_columns([], None, tab.palette), name="marks")
        self._shown_key: tuple[Any, ...] = ()

    def update(self) -> bool:
        state, shown_step = self.tab.state, self.tab.playback.shown_step
        marks = [] if state is None else list(state.requests.edit_marks)
        x_axis = self.tab.chart_settings.x_axis
        key = (marks, shown_step, self.tab.palette, x_axis)
        if key == self._shown_key:
            return False
        self._shown_key = key
        edits = [(float(mark.step), mark.title or "Network edited") for mark in marks]
        columns = _columns(edits, shown_step, self.tab.palette)
        if state is not None:
            columns["step"] = x_values(x_axis, state, columns["step"])
        self.source.data = columns
        return True

    def restyle(self, palette: Palette) -> None:
        self.update()


def _columns(
    edits: list[tuple[float, str]], shown_step: float | None, palette: Palette
) -> dict[str, Any]:
    """Return dashed green lines for edits, and a solid line for the shown batch."""
    n, past = len(edits), [] if shown_step is None else [int(shown_step)]
    titles = [title for _, title in edits] + [f"Shown: batch {format_count(at)}" for at in past]
    return {
        "step": np.array([step for step, _ in edits] + past, float),
        "title": titles,
        "color": [palette.green] * n + [palette.text] * len(past),
        "dash": ["dashed"] * n + ["solid"] * len(past),
        # Behind the shown batch, charts are dimmed: the curves there are newer than all else.
        "past": [False] * n + [True] * len(past),
        "alpha": np.array([0.6] * n + [0.9] * len(past), float),
    }
