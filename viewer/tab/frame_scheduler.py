"""When the next frame may be sent to a page: on credit, and so often on average."""

from __future__ import annotations

__all__ = ["PERIODS", "FrameScheduler"]

PERIOD = 0.08  # s between frames with new numbers, on average: a training at 10 Hz never waits
SLACK = 0.04  # s: numbers that come a little early need not wait
APART = 0.04  # s from any frame to one that brings no new numbers
LOST = 5.0  # s; an answer that takes longer is not coming
# s between two of what is sent besides the numbers: the page takes as long for a chart, or for the
# pictures of a layer, as for all the rest.
PERIODS = {"chart": 0.2, "pictures": 0.25}
SHARE, LONGEST = 3.0, 2.0  # ... and this many times as long as a frame takes to be painted; s
MEMORY = 0.3  # weight of the newest answer in the mean


class FrameScheduler:
    """The credit of one page. Time is passed in, in seconds of any one clock.

    Attributes:
        lag: seconds from sending a frame to its being painted, smoothed.
    """

    def __init__(self) -> None:
        self.lag = 0.0
        self._due = self._sent_at = float("-inf")
        self._besides = dict.fromkeys(PERIODS, float("-inf"))
        self._waiting = self._edited = False

    def wait(self, now: float, *, numbers: bool, edited: bool = False) -> float | None:
        """Seconds until a frame, with new numbers or without, may be sent; None: no credit.

        One that shows an ``edited`` network, which a person waits for, needs none, unless the page
        owes the answer to another of these.
        """
        if edited and not (self._edited and self._waits(now)):
            return 0.0
        if self._waits(now):
            return None
        return max(0.0, (self._due if numbers else self._sent_at + APART) - now)

    def sent(self, now: float, *, numbers: bool, edited: bool = False) -> None:
        """A frame has been sent."""
        self._edited = edited or (self._edited and self._waits(now))
        if edited:  # and what was removed is to leave the pictures, too
            self._besides["pictures"] = float("-inf")
        self._sent_at, self._waiting = now, True
        if numbers:  # the average is kept: what was sent early is paid for by the next
            self._due = min(max(self._due, now - SLACK), now) + PERIOD

    def answered(self, now: float) -> None:
        """The page has painted what it was sent."""
        if self._waiting:
            self._waiting = False
            self.lag += MEMORY * (now - self._sent_at - self.lag)

    def is_due(self, what: str, now: float) -> bool:
        """Whether a "chart" or the "pictures" may be sent: while nothing else is painted, and to a
        page that lags fewer."""
        period = min(LONGEST, max(PERIODS[what], SHARE * self.lag))
        return not self._waits(now) and now - self._besides[what] >= period

    def spent(self, what: str, now: float) -> None:
        """A chart or the pictures have been sent, or had nothing new."""
        self._besides[what] = now

    def _waits(self, now: float) -> bool:
        """Whether the page owes an answer."""
        return self._waiting and now - self._sent_at < LOST
