"""The timeline: goes back to batches recorded since the viewer attached."""

from __future__ import annotations

from typing import Any

from ..rendering.formatting import format_count
from ..runs.history import History
from .html_panel import HtmlPanel

__all__ = ["Timeline"]

LIVE_SLIDER_ROWS = 1000


class Timeline(HtmlPanel):
    part = "timeline"

    def content(self) -> dict[str, Any]:
        state, playback = self.tab.state, self.tab.playback
        if state is None or state.histories.filters.length < 2:
            return {"rows": 0}
        history, row = state.histories.filters, playback.row(state)
        # While live, the slider stays at its end, however long the recording is.
        return {
            "rows": LIVE_SLIDER_ROWS if playback.is_live else history.length,
            "row": LIVE_SLIDER_ROWS - 1 if playback.is_live else row,
            "recorded": history.length,
            "live": playback.is_live,
            "playing": playback.is_playing,
            "text": self._text(history, row),
            "notice": "" if playback.is_live else _past_notice(history, row),
            "recording_note": _recording_note(history),
        }

    def _text(self, history: History, row: int) -> str:
        if not self.tab.playback.is_live:
            return f"batch {format_count(int(history.steps[row]))}"
        return "end of the run" if self.tab.ended_reason() else "live"


def _past_notice(history: History, row: int) -> str:
    """Say which batch the page shows instead of the newest."""
    shown, newest = (format_count(int(history.steps[at])) for at in (row, -1))
    return f"Batch {shown} of {newest}. Edits apply to the network as it is now."


def _recording_note(history: History) -> str:
    """Describe the recording. The text changes only when its resolution is halved."""
    every = "Every batch is" if history.stride == 1 else f"Means of {history.stride} batches are"
    return (
        f"{every} recorded since batch {format_count(int(history.steps[0]))}. The recording holds "
        f"at most {history.capacity} entries; when it is full, adjacent entries are averaged."
    )
