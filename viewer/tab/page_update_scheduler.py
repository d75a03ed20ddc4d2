"""Decides when the next update of a page may be sent. Each update is a frame.

The page confirms a frame once it has painted it. While a confirmation is pending, no further
frame is sent, so a slow page receives fewer frames instead of a growing backlog. A confirmation
costs the server as much as a frame does, so a page that paints in time confirms one of several.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["SECONDARY_INTERVALS", "PageUpdateScheduler", "UpdateUrgency"]

# All constants without another unit are seconds.
FRAME_INTERVAL = 0.08  # average between frames with new statistics: training at 10 Hz never waits
EARLY_TOLERANCE = 0.04  # statistics that arrive this much early are sent without a delay
# Between any frame and the next one without new statistics: at 10 Hz it waits for those.
MIN_GAP = 0.2
PAINT_TIMEOUT = 5.0  # a confirmation that takes longer counts as lost
SHORT_LAG = 0.06  # a page with at most this lag has painted a frame before the next one is due
MAX_UNCONFIRMED = 3  # frames in a row: what a page that becomes slow may have to catch up with
PAINT_FACTOR = 1.25  # an unconfirmed frame counts as painted after this many times the lag
# Minimum intervals of secondary content. Drawing one chart, or the images of a layer, takes the
# page as long as everything else in a frame.
SECONDARY_INTERVALS = {"chart": 0.25, "images": 0.25}
# On slow pages the secondary interval is a multiple of the lag, up to a maximum.
LAG_FACTOR, MAX_SECONDARY_INTERVAL = 3.0, 2.0
LAG_SMOOTHING = 0.3  # weight of the newest measurement in the moving average


class UpdateUrgency(IntEnum):
    """How urgent an update is, by what a person waits for; more urgent values are larger."""

    NOTHING = 0
    REPLY = 1  # such as a plan
    EDIT = 2  # another network


class PageUpdateScheduler:
    """Decides when the next update may be sent to one page. Each update is a frame.

    All methods receive the current time in seconds, from any monotonic clock.

    Attributes:
        lag: seconds from sending a frame until the page has painted it, smoothed.
        painted_at: when an unconfirmed frame counts as painted; any time in the past otherwise.
    """

    def __init__(self) -> None:
        self.lag, self.painted_at = 0.0, float("-inf")
        self._statistics_due_at = self._sent_at = float("-inf")
        self._secondary_sent_at = dict.fromkeys(SECONDARY_INTERVALS, float("-inf"))
        self._is_pending = False
        self._n_unconfirmed = MAX_UNCONFIRMED  # frames in a row; the first frame is confirmed
        self._pending = UpdateUrgency.NOTHING  # what the unconfirmed frame shows

    def seconds_until_frame(
        self, now: float, *, new_statistics: bool, urgency: UpdateUrgency = UpdateUrgency.NOTHING
    ) -> float | None:
        """Return the seconds until a frame may be sent; None while a confirmation is pending.

        A frame that a person waits for is sent immediately, unless one that is as urgent has not
        been confirmed yet.
        """
        if urgency > (self._pending if self._is_paint_pending(now) else UpdateUrgency.NOTHING):
            return 0.0
        if self._is_paint_pending(now):
            return None
        due_at = self._statistics_due_at if new_statistics else self._sent_at + MIN_GAP
        return max(0.0, due_at - now, self.painted_at - now)

    def needs_confirmation(
        self, now: float, urgency: UpdateUrgency = UpdateUrgency.NOTHING
    ) -> bool:
        """Return whether the page is to confirm a frame that is sent now."""
        is_late = self._is_pending or self.lag > SHORT_LAG
        return is_late or urgency > UpdateUrgency.NOTHING or self._n_unconfirmed >= MAX_UNCONFIRMED

    def record_frame_sent(
        self,
        now: float,
        *,
        new_statistics: bool,
        urgency: UpdateUrgency = UpdateUrgency.NOTHING,
        is_confirmed: bool = True,
    ) -> None:
        """Record that a frame was sent; the page confirms it only if ``is_confirmed``."""
        still_pending = self._pending if self._is_paint_pending(now) else UpdateUrgency.NOTHING
        self._pending = max(urgency, still_pending)
        if (
            urgency == UpdateUrgency.EDIT
        ):  # removed filters have to disappear from the images as well
            self._secondary_sent_at["images"] = float("-inf")
        self._sent_at, self._is_pending = now, is_confirmed
        self._n_unconfirmed = 0 if is_confirmed else self._n_unconfirmed + 1
        self.painted_at = now if is_confirmed else now + PAINT_FACTOR * self.lag
        if new_statistics:  # a frame sent early delays the next one, so the average rate holds
            due_at = min(max(self._statistics_due_at, now - EARLY_TOLERANCE), now)
            self._statistics_due_at = due_at + FRAME_INTERVAL

    def record_frame_painted(self, now: float) -> None:
        """Record that the page has painted the last frame."""
        if self._is_pending:
            self._is_pending = False
            self.lag += LAG_SMOOTHING * (now - self._sent_at - self.lag)

    def is_secondary_due(self, kind: str, now: float) -> bool:
        """Return whether a chart or the images may be sent (``kind`` of SECONDARY_INTERVALS).

        They never compete with a frame that is still to be painted. The interval grows with the
        lag of the page.
        """
        interval = max(SECONDARY_INTERVALS[kind], LAG_FACTOR * self.lag)
        interval = min(MAX_SECONDARY_INTERVAL, interval)
        is_painted = not self._is_paint_pending(now) and now >= self.painted_at
        return is_painted and now - self._secondary_sent_at[kind] >= interval

    def record_secondary_sent(self, kind: str, now: float) -> None:
        """Record that a chart or the images were sent, or that nothing about them was new."""
        self._secondary_sent_at[kind] = now

    def _is_paint_pending(self, now: float) -> bool:
        return self._is_pending and now - self._sent_at < PAINT_TIMEOUT
