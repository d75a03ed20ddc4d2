"""The timeline: goes back to earlier batches of the run."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..rendering.formatting import format_count
from ..runs.run_state import RunState
from .html_panel import HtmlDataPanel

__all__ = ["Timeline"]

LIVE_SLIDER_ROWS = 1000
MAX_EDIT_TICKS = 64
LAYER_MEANS_ONLY = "Only layer means are known of that time."


class Timeline(HtmlDataPanel):
    """The slider over the recorded batches, which shows earlier states of the run."""

    part = "timeline"

    def content(self) -> dict[str, Any]:
        state, playback = self.tab.state, self.tab.playback
        moments = np.zeros(0) if state is None else state.histories.moments()
        if state is None or len(moments) < 2:
            return {"rows": 0}
        moment = playback.moment(state)
        # While live, the slider stays at its end, however long the recording is.
        return {
            "rows": LIVE_SLIDER_ROWS if playback.is_live else len(moments),
            "row": LIVE_SLIDER_ROWS - 1 if playback.is_live else moment,
            "recorded": len(moments),
            "live": playback.is_live,
            "playing": playback.is_playing,
            "text": self._text(moments, moment),
            "notice": "" if playback.is_live else self._past_notice(state, moments, moment),
            "recording_note": _recording_note(state, moments),
            "edits": _edit_positions(state, moments),
        }

    def _text(self, moments: np.ndarray, moment: int) -> str:
        if not self.tab.playback.is_live:
            return f"batch {format_count(int(moments[moment]))}"
        return "end of the run" if self.tab.ended_reason() else "live"

    def _past_notice(self, state: RunState, moments: np.ndarray, moment: int) -> str:
        """Say which batch the page shows instead of the newest, and what is known of it."""
        shown, newest = (format_count(int(moments[at])) for at in (moment, -1))
        notice = f"Batch {shown} of {newest}."
        if not self.tab.ended_reason():
            notice += " Edits apply to the network as it is now."
        if self.tab.playback.shows_layer_means(state):
            notice += f" {LAYER_MEANS_ONLY}"
        return notice


def _edit_positions(state: RunState, moments: np.ndarray) -> list[float]:
    """Return where the newest edits are on the slider, from 0 to 1."""
    steps = [mark.step for mark in state.requests.edit_marks][-MAX_EDIT_TICKS:]
    positions = np.searchsorted(moments, steps) / (len(moments) - 1)
    return [round(float(position), 3) for position in np.unique(np.minimum(positions, 1.0))]


def _recording_note(state: RunState, moments: np.ndarray) -> str:
    """Describe the recording. The text changes only when its resolution is halved."""
    histories = state.histories
    if not histories.filters.length:
        return _layers_note(moments)
    stride, first = histories.filters.stride, format_count(int(histories.filters.steps[0]))
    every = "Every batch is" if stride == 1 else f"Means of {stride} batches are"
    note = (
        f"{every} recorded since batch {first}. The recording holds at most "
        f"{histories.filters.capacity} entries; when it is full, adjacent entries are averaged."
    )
    return f"{_layers_note(moments)} {note}" if histories.n_layer_only_moments else note


def _layers_note(moments: np.ndarray) -> str:
    first = format_count(int(moments[0]))
    return f"The run has kept the means of the layers since batch {first}."
