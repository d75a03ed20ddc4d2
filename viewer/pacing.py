"""When the next frame may be sent to a page: on credit, and so often on average."""

from __future__ import annotations

__all__ = ["Pace"]

PERIOD = 0.1  # s between frames, on average
SLACK = 0.03  # s: a snapshot that comes a little early need not wait
LOST = 5.0  # s; an answer that takes longer is not coming
CHART_PERIOD = 0.1  # s between two charts; each costs a page more than all the nodes
CHART_SHARE = 3.0  # charts wait this many times as long as a frame takes to be painted
MEMORY = 0.3  # weight of the newest answer in the mean


class Pace:
    """The credit of one page. Time is passed in, in seconds of any one clock.

    Attributes:
        lag: seconds from sending a frame to its being painted, smoothed.
    """

    def __init__(self) -> None:
        self.lag = 0.0
        self._due = self._sent_at = self._charts_at = float("-inf")
        self._waiting = False

    def wait(self, now: float) -> float | None:
        """Seconds until a frame may be sent; None: not before the last one is answered."""
        if self._waiting and now - self._sent_at < LOST:
            return None
        return max(0.0, self._due - now)

    def sent(self, now: float) -> None:
        """A frame has been sent."""
        self._sent_at, self._waiting = now, True
        # The average is kept: what was sent early is paid for by the next.
        self._due = max(self._due, now - SLACK) + PERIOD

    def answered(self, now: float) -> None:
        """The page has painted what it was sent."""
        if self._waiting:
            self._waiting = False
            self.lag += MEMORY * (now - self._sent_at - self.lag)

    def charts_due(self, now: float) -> bool:
        """Whether a chart may go with this frame: a page that lags gets fewer."""
        if now - self._charts_at < max(CHART_PERIOD, CHART_SHARE * self.lag) - SLACK:
            return False
        self._charts_at = now
        return True
