"""Which moment of the run is shown: now, or one of those recorded since the viewer attached."""

from __future__ import annotations

import time

import numpy as np

from ..runs.run_histories import FILTER_STATISTICS
from ..runs.run_state import RunState

__all__ = ["Playback"]

FRAMES = 200  # in which the whole recording is played
FRAME_SECONDS = 0.09


class Playback:
    """The moment one tab looks at.

    Attributes:
        moment: the batch that is looked back at; None: live.
        playing: whether it moves on by itself.
    """

    def __init__(self) -> None:
        self.moment: float | None = None
        self.playing = False
        self._advanced = 0.0

    def clock(self, state: RunState | None) -> tuple[float, ...]:
        """Changes whenever other numbers are to be shown than before."""
        if state is None:
            return ()
        return (state.values_revision,) if self.moment is None else (-1, self.moment)

    def row(self, state: RunState) -> int:
        """The row of the recorded history that is shown."""
        last = max(0, state.histories.filters.length - 1)
        if self.moment is None:
            return last
        return min(last, int(np.searchsorted(state.histories.filters.steps, self.moment)))

    def values(self, state: RunState | None) -> dict[str, np.ndarray]:
        """The statistics of every filter at this moment; NaN: it did not exist yet."""
        if state is None:
            return {}
        if self.moment is None or not state.histories.filters.length:
            return state.latest
        row = state.histories.filters.rows[self.row(state)]
        return dict(zip(FILTER_STATISTICS, np.split(row, 2), strict=True))

    def go_to(self, state: RunState, row: int) -> None:
        """Show a row of the history; the last one, and any that is not there, is live."""
        if 0 <= row < state.histories.filters.length - 1:
            self.moment = float(state.histories.filters.steps[row])
        else:
            self.go_live()

    def go_live(self) -> None:
        """Follow the training again."""
        self.moment, self.playing = None, False

    def toggle(self, state: RunState) -> None:
        """Play on from here, from the beginning if this is the end; or halt."""
        self.playing = not self.playing
        if self.playing and self.moment is None:
            self.go_to(state, 0)

    def advance(self, state: RunState) -> bool:
        """Move on if it is time to; True if another moment is shown now."""
        now = time.monotonic()
        if not self.playing or now - self._advanced < FRAME_SECONDS:
            return False
        self._advanced = now
        self.go_to(state, self.row(state) + max(1, round(state.histories.filters.length / FRAMES)))
        return True
