"""Where the network was changed, for the time axes of all charts."""

from __future__ import annotations

import numpy as np
from bokeh.models import ColumnDataSource

from ..palette import Palette
from ..tab import Tab

__all__ = ["EditMarks"]


class EditMarks:
    """Has no place of its own in the page: the charts share its source."""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab
        self.root = self.source = ColumnDataSource({"step": np.zeros(0)}, name="marks")

    def update(self) -> bool:
        state = self.tab.state
        steps = np.array([mark.step for mark in state.marks] if state is not None else [], float)
        if np.array_equal(steps, self.source.data["step"]):
            return False
        self.source.data = {"step": steps}
        return True

    def restyle(self, palette: Palette) -> None:
        """Drawn by the charts."""
