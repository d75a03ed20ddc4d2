"""Which batch of the history a tab shows: the newest (live), or an earlier one."""

from __future__ import annotations

import time

import numpy as np

from ..runs.run_state import RunState

__all__ = ["Playback"]

PLAYBACK_FRAMES = 200  # frames in which the whole history is played
FRAME_SECONDS = 0.09
MIN_RECORDED = 2  # moments without which there is no past


class Playback:
    """The position of one tab in the history: an index in `RunHistoryWithFilters.moments`.

    Attributes:
        shown_step: the past batch shown; None while the tab is live.
        is_playing: whether the position advances by itself.
    """

    def __init__(self) -> None:
        self.shown_step: float | None = None
        self.is_playing = False
        self._advanced_at = 0.0
        self._requested_step: int | None = None  # shown as soon as the recording reaches it

    @property
    def is_live(self) -> bool:
        """Whether the newest batch is shown."""
        return self.shown_step is None

    def key(self, state: RunState | None) -> tuple[float, ...]:
        """Return a key that changes whenever other statistics are to be shown."""
        if state is None:
            return ()
        return (state.values_revision,) if self.shown_step is None else (-1, self.shown_step)

    def moment(self, state: RunState) -> int:
        """Return the moment that is shown."""
        moments = state.histories.moments()
        last = max(0, len(moments) - 1)
        if self.shown_step is None:
            return last
        return min(last, int(np.searchsorted(moments, self.shown_step)))

    def shows_layer_means(self, state: RunState) -> bool:
        """Return whether only the means of the layers are known of the shown batch."""
        return not self.is_live and self.moment(state) < state.histories.n_layer_only_moments

    def values(self, state: RunState | None) -> dict[str, np.ndarray]:
        """Return the statistics of every filter at the shown batch.

        Each array has the shape (filters,). NaN marks filters that did not exist yet.
        """
        if state is None:
            return {}
        if self.shown_step is None or not len(state.histories.moments()):
            return state.latest
        return state.histories.values_at(self.moment(state), state.offsets)

    def dead_mask(self, state: RunState) -> np.ndarray:
        """Return which filters were dead at the shown batch, bool (filters,)."""
        if self.shown_step is None or not state.histories.filters.length:
            return state.dead_mask()
        row = self.moment(state) - state.histories.n_layer_only_moments
        if row < 0:  # only the shares of the layers are known
            return np.zeros(state.n_filters, bool)
        return state.dead_mask_at(row)

    def go_to(self, state: RunState, moment: int) -> None:
        """Show a moment. The last one, and any out of range, mean live."""
        self._requested_step = None
        moments = state.histories.moments()
        if 0 <= moment < len(moments) - 1:
            self.shown_step = float(moments[moment])
        else:
            self.go_live()

    def go_live(self) -> None:
        """Return to the newest batch."""
        self.shown_step, self.is_playing, self._requested_step = None, False, None

    def request_step(self, step: int) -> None:
        """Show a batch as soon as there is a recording. A batch yet to come is not shown."""
        self._requested_step = step

    def _show_requested_step(self, state: RunState) -> bool:
        step, steps = self._requested_step, state.histories.moments()
        if step is None or len(steps) < MIN_RECORDED:
            return False
        self._requested_step = None
        self.shown_step = float(step) if 0 <= step < steps[-1] else None
        return self.shown_step is not None

    def toggle_playing(self, state: RunState) -> None:
        """Start or stop playing. Playing from the live position starts at the first moment."""
        self.is_playing = not self.is_playing
        if self.is_playing and self.shown_step is None:
            self.go_to(state, 0)

    def advance(self, state: RunState) -> bool:
        """Advance by one frame if one is due. Return True if the position changed."""
        if self._requested_step is not None:
            return self._show_requested_step(state)
        now = time.monotonic()
        if not self.is_playing or now - self._advanced_at < FRAME_SECONDS:
            return False
        self._advanced_at = now
        n_moments = len(state.histories.moments())
        self.go_to(state, self.moment(state) + max(1, round(n_moments / PLAYBACK_FRAMES)))
        return True
