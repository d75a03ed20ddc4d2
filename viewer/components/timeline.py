"""Going back in what has been recorded since the viewer attached."""

from __future__ import annotations

from typing import Any

from ..rendering.formatting import format_count
from ..runs.run_state import RunState
from .html_panel import HtmlPanel

__all__ = ["Timeline"]


class Timeline(HtmlPanel):
    part = "timeline"

    def content(self) -> dict[str, Any]:
        state = self.tab.state
        if state is None or state.histories.filters.length < 2:
            return {"rows": 0}
        rows, live = state.histories.filters.length, self.tab.playback.moment is None
        row = self.tab.playback.row(state)
        step = int(state.histories.filters.steps[row])
        return {
            # Live, the slider stands at its end however long the recording: no news every frame.
            "rows": rows if not live else 1000,
            "at": row if not live else 999,
            "recorded": rows,
            "live": live,
            "playing": self.tab.playback.playing,
            "text": "live" if live else f"batch {format_count(step)}",
            "kept": _kept(state),
        }


def _kept(state: RunState) -> str:
    """What the recording holds, in words that change only when it is thinned out."""
    stride, first = state.histories.filters.stride, int(state.histories.filters.steps[0])
    each = "every batch" if stride == 1 else f"every {stride} batches, one moment with their means,"
    return (
        f"Recorded is {each} since batch {format_count(first)}. At most {state.histories.filters.capacity} moments "
        "are kept: when these are full, every two neighbours become one."
    )
