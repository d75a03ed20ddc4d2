"""Which recorded batch a tab shows: the newest (live), or one recorded earlier."""

from __future__ import annotations

import time

import numpy as np

from ..runs.run_histories import FILTER_STATISTICS
from ..runs.run_state import RunState

__all__ = ["Playback"]

PLAYBACK_FRAMES = 200  # frames in which the whole recording is played
FRAME_SECONDS = 0.09


class Playback:
    """The position of one tab in the recorded history.

    Attributes:
        shown_step: the past batch shown; None while the tab is live.
        is_playing: whether the position advances by itself.
    """

    def __init__(self) -> None:
        self.shown_step: float | None = None
        self.is_playing = False
        self._advanced_at = 0.0

    @property
    def is_live(self) -> bool:
        """Whether the newest batch is shown."""
        return self.shown_step is None

    def key(self, state: RunState | None) -> tuple[float, ...]:
        """Return a key that changes whenever other statistics are to be shown."""
        if state is None:
            return ()
        return (state.values_revision,) if self.shown_step is None else (-1, self.shown_step)

    def row(self, state: RunState) -> int:
        """Return the row of the recorded history that is shown."""
        last = max(0, state.histories.filters.length - 1)
        if self.shown_step is None:
            return last
        return min(last, int(np.searchsorted(state.histories.filters.steps, self.shown_step)))

    def values(self, state: RunState | None) -> dict[str, np.ndarray]:
        """Return the statistics of every filter at the shown batch.

        Each array has the shape (filters,). NaN marks filters that did not exist yet.
        """
        if state is None:
            return {}
        if self.shown_step is None or not state.histories.filters.length:
            return state.latest
        row = state.histories.filters.rows[self.row(state)]
        return dict(zip(FILTER_STATISTICS, np.split(row, 2), strict=True))

    def dead_mask(self, state: RunState) -> np.ndarray:
        """Return which filters were dead at the shown batch, bool (filters,)."""
        if self.shown_step is None or not state.histories.filters.length:
            return state.dead_mask()
        return state.dead_mask_at(self.row(state))

    def go_to(self, state: RunState, row: int) -> None:
        """Show a row of the history. The last row, and any row out of range, mean live."""
        if 0 <= row < state.histories.filters.length - 1:
            self.shown_step = float(state.histories.filters.steps[row])
        else:
            self.go_live()

    def go_live(self) -> None:
        """Return to the newest batch."""
        self.shown_step, self.is_playing = None, False

    def toggle(self, state: RunState) -> None:
        """Start or stop playing. Playing from the live position starts at the first row."""
        self.is_playing = not self.is_playing
        if self.is_playing and self.shown_step is None:
            self.go_to(state, 0)

    def advance(self, state: RunState) -> bool:
        """Advance by one frame if one is due. Return True if the position changed."""
        now = time.monotonic()
        if not self.is_playing or now - self._advanced_at < FRAME_SECONDS:
            return False
        self._advanced_at = now
        self.go_to(
            state, self.row(state) + max(1, round(state.histories.filters.length / PLAYBACK_FRAMES))
        )
        return True
