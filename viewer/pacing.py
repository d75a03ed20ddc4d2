"""When the next frame may be sent to a page: on credit, and so often on average."""

from __future__ import annotations

__all__ = ["Pace"]

PERIOD = 0.08  # s between frames with new numbers, on average: a training at 10 Hz never waits
SLACK = 0.04  # s: numbers that come a little early need not wait
APART = 0.04  # s from any frame to one that brings no new numbers
LOST = 5.0  # s; an answer that takes longer is not coming
CHART_PERIOD = 0.15  # s between two charts: the page takes as long for one as for all the rest
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

    def wait(self, now: float, *, numbers: bool) -> float | None:
        """Seconds until a frame, with new numbers or without, may be sent; None: no credit."""
        if self._waits(now):
            return None
        return max(0.0, (self._due if numbers else self._sent_at + APART) - now)

    def sent(self, now: float, *, numbers: bool) -> None:
        """A frame has been sent."""
        self._sent_at, self._waiting = now, True
        if numbers:  # the average is kept: what was sent early is paid for by the next
            self._due = min(max(self._due, now - SLACK), now) + PERIOD

    def answered(self, now: float) -> None:
        """The page has painted what it was sent."""
        if self._waiting:
            self._waiting = False
            self.lag += MEMORY * (now - self._sent_at - self.lag)

    def charts_due(self, now: float) -> bool:
        """Whether a chart may be sent: while nothing else is, and to a page that lags fewer."""
        period = max(CHART_PERIOD, CHART_SHARE * self.lag)
        return not self._waits(now) and now - self._charts_at >= period

    def chart_sent(self, now: float) -> None:
        """A chart has been sent, or none had anything new."""
        self._charts_at = now

    def _waits(self, now: float) -> bool:
        """Whether the page owes an answer."""
        return self._waiting and now - self._sent_at < LOST
