"""What is marked on the time axes of all charts: where the network was changed, and the moment
that is looked back at."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource

from ..rendering.formatting import format_count
from ..rendering.palette import Palette
from ..tab.tab_state import TabState

__all__ = ["EditMarkers"]


class EditMarkers:
    """Has no place of its own in the page: the charts share its source, and draw it."""

    def __init__(self, tab: TabState) -> None:
        self.tab = tab
        self.root = self.source = ColumnDataSource(_columns([], None, tab.palette), name="marks")
        self._shown: tuple[Any, ...] = ()

    def update(self) -> bool:
        state, moment = self.tab.state, self.tab.playback.moment
        marks = [] if state is None else list(state.requests.edit_marks)
        shown = (marks, moment, self.tab.palette)
        if shown == self._shown:
            return False
        self._shown = shown
        edits = [(float(mark.step), mark.title or "The network was changed") for mark in marks]
        self.source.data = _columns(edits, moment, self.tab.palette)
        return True

    def restyle(self, palette: Palette) -> None:
        self.update()


def _columns(
    edits: list[tuple[float, str]], moment: float | None, palette: Palette
) -> dict[str, Any]:
    """Edits are thin, dashed and green, the moment is one line in the colour of the text."""
    n, cursor = len(edits), [] if moment is None else [int(moment)]
    m = len(cursor)
    return {
        "step": np.array([step for step, _ in edits] + cursor, float),
        "title": [title for _, title in edits]
        + [f"Looking back at batch {format_count(at)}" for at in cursor],
        "color": [palette.green] * n + [palette.text] * m,
        "dash": ["dashed"] * n + ["solid"] * m,
        "alpha": np.array([0.6] * n + [0.9] * m, float),
    }
