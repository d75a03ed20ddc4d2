from __future__ import annotations

import pytest

from viewer.tab.page_update_scheduler import (
    FRAME_INTERVAL,
    MAX_SECONDARY_INTERVAL,
    MAX_UNCONFIRMED,
    MIN_GAP,
    PAINT_TIMEOUT,
    SECONDARY_INTERVALS,
    PageUpdateScheduler,
    UpdateUrgency,
)


def test_no_frame_before_the_last_one_is_painted() -> None:
    scheduler = PageUpdateScheduler()
    assert scheduler.seconds_until_frame(0.0, new_statistics=True) == 0
    scheduler.record_frame_sent(0.0, new_statistics=True)
    assert scheduler.seconds_until_frame(1.0, new_statistics=True) is None
    scheduler.record_frame_painted(1.0)
    assert scheduler.seconds_until_frame(1.0, new_statistics=True) == 0


def test_lost_confirmation_times_out() -> None:
    scheduler = PageUpdateScheduler()
    scheduler.record_frame_sent(0.0, new_statistics=True)
    assert scheduler.seconds_until_frame(PAINT_TIMEOUT - 0.1, new_statistics=False) is None
    assert scheduler.seconds_until_frame(PAINT_TIMEOUT, new_statistics=False) == 0


@pytest.mark.parametrize("hz", [10, 50, 200])
def test_statistics_are_sent_at_the_average_rate(hz: int) -> None:
    scheduler, frames = PageUpdateScheduler(), 0
    for i in range(10 * hz):
        now = i / hz
        if scheduler.seconds_until_frame(now, new_statistics=True) == 0:
            scheduler.record_frame_sent(now, new_statistics=True)
            scheduler.record_frame_painted(now + 0.004)
            frames += 1
    assert frames <= 10 / FRAME_INTERVAL + 2
    assert frames >= 99


def test_statistics_at_10_hz_are_never_delayed() -> None:
    scheduler = PageUpdateScheduler()
    for i in range(100):
        now = i * 0.1 + (0.02 if i % 2 else 0.0)
        assert scheduler.seconds_until_frame(now, new_statistics=True) == 0
        scheduler.record_frame_sent(now, new_statistics=True)
        scheduler.record_frame_painted(now + 0.03)


def test_frame_without_statistics_does_not_delay_statistics() -> None:
    scheduler = PageUpdateScheduler()
    scheduler.record_frame_sent(0.0, new_statistics=True)
    scheduler.record_frame_painted(0.01)
    assert scheduler.seconds_until_frame(0.02, new_statistics=False) == pytest.approx(
        MIN_GAP - 0.02
    )
    scheduler.record_frame_sent(MIN_GAP, new_statistics=False)
    scheduler.record_frame_painted(MIN_GAP + 0.005)
    assert scheduler.seconds_until_frame(MIN_GAP + 0.01, new_statistics=True) == 0


def test_what_is_new_besides_statistics_had_frames_of_its_own() -> None:
    """They were one of ten frames, and each costs the server as much as any."""
    scheduler = PageUpdateScheduler()
    scheduler.record_frame_sent(0.0, new_statistics=True)
    scheduler.record_frame_painted(0.01)
    # A training at 10 Hz is due at 0.1.
    delay = scheduler.seconds_until_frame(0.05, new_statistics=False)
    assert delay is not None
    assert delay > 0.05
    assert scheduler.seconds_until_frame(0.1, new_statistics=True) == 0


def test_slow_page_receives_fewer_charts() -> None:
    def charts(lag: float) -> int:
        scheduler, count = PageUpdateScheduler(), 0
        for i in range(100):
            now = 0.2 * i
            scheduler.record_frame_sent(now, new_statistics=True)
            scheduler.record_frame_painted(now + lag)
            if scheduler.is_secondary_due("chart", now + lag):
                scheduler.record_secondary_sent("chart", now + lag)
                count += 1
        return count

    assert charts(0.01) == 50
    assert 20 < charts(0.18) < 45


@pytest.mark.parametrize("kind", SECONDARY_INTERVALS)
def test_secondary_content_waits_until_statistics_are_painted(kind: str) -> None:
    scheduler = PageUpdateScheduler()
    scheduler.record_frame_sent(0.0, new_statistics=True)
    assert not scheduler.is_secondary_due(kind, 0.05)
    scheduler.record_frame_painted(0.06)
    assert scheduler.is_secondary_due(kind, 0.06)
    scheduler.record_secondary_sent(kind, 0.06)
    assert not scheduler.is_secondary_due(kind, 0.07)
    assert scheduler.is_secondary_due(kind, 0.06 + SECONDARY_INTERVALS[kind])


def test_images_have_a_maximum_interval_on_slow_pages() -> None:
    scheduler = PageUpdateScheduler()
    for i in range(20):
        scheduler.record_frame_sent(10.0 * i, new_statistics=True)
        scheduler.record_frame_painted(10.0 * i + 4)
    scheduler.record_secondary_sent("images", 194.0)
    assert not scheduler.is_secondary_due("images", 195.0)
    assert scheduler.is_secondary_due("images", 194.0 + MAX_SECONDARY_INTERVAL)


def test_edit_is_sent_without_confirmation_but_only_one_at_a_time() -> None:
    scheduler = PageUpdateScheduler()
    scheduler.record_frame_sent(0.0, new_statistics=True)
    assert scheduler.seconds_until_frame(0.01, new_statistics=True) is None
    assert (
        scheduler.seconds_until_frame(0.01, new_statistics=False, urgency=UpdateUrgency.EDIT) == 0
    )
    scheduler.record_frame_sent(0.01, new_statistics=False, urgency=UpdateUrgency.EDIT)
    assert (
        scheduler.seconds_until_frame(0.02, new_statistics=False, urgency=UpdateUrgency.EDIT)
        is None
    )
    scheduler.record_frame_painted(0.05)
    assert (
        scheduler.seconds_until_frame(0.05, new_statistics=False, urgency=UpdateUrgency.EDIT) == 0
    )
    scheduler.record_frame_sent(0.05, new_statistics=True)
    # The last edit is confirmed.
    assert (
        scheduler.seconds_until_frame(0.06, new_statistics=False, urgency=UpdateUrgency.EDIT) == 0
    )


def test_an_edit_waited_for_the_painting_of_its_own_plan() -> None:
    scheduler = PageUpdateScheduler()
    scheduler.record_frame_sent(0.0, new_statistics=False, urgency=UpdateUrgency.REPLY)
    assert (
        scheduler.seconds_until_frame(0.01, new_statistics=False, urgency=UpdateUrgency.REPLY)
        is None
    )
    assert (
        scheduler.seconds_until_frame(0.01, new_statistics=False, urgency=UpdateUrgency.EDIT) == 0
    )


def test_images_are_due_immediately_after_an_edit() -> None:
    scheduler = PageUpdateScheduler()
    scheduler.record_secondary_sent("images", 0.0)
    scheduler.record_frame_sent(0.0, new_statistics=False, urgency=UpdateUrgency.EDIT)
    scheduler.record_frame_painted(0.03)
    assert scheduler.is_secondary_due("images", 0.03)


def confirmations(lag: float, frames: int = 40) -> list[bool]:
    """Return which frames at 10 Hz a page confirms that paints each after ``lag``."""
    scheduler, asked = PageUpdateScheduler(), []
    for i in range(frames):
        now = 0.1 * i
        if scheduler.seconds_until_frame(now, new_statistics=True) != 0:
            continue
        asked.append(scheduler.needs_confirmation(now))
        scheduler.record_frame_sent(now, new_statistics=True, is_confirmed=asked[-1])
        if asked[-1]:
            scheduler.record_frame_painted(now + lag)
    return asked


def test_a_page_that_paints_in_time_confirmed_every_frame() -> None:
    """The confirmations cost the server as much as the frames."""
    asked = confirmations(0.03)
    assert len(asked) == 40  # none was delayed
    assert asked == [i % (1 + MAX_UNCONFIRMED) == 0 for i in range(40)]


def test_a_page_that_paints_late_confirms_every_frame() -> None:
    asked = confirmations(0.095)
    assert all(asked[20:])


def test_a_frame_that_a_person_waits_for_is_confirmed() -> None:
    scheduler = PageUpdateScheduler()
    scheduler.record_frame_sent(0.0, new_statistics=True)
    scheduler.record_frame_painted(0.02)
    assert not scheduler.needs_confirmation(0.1)
    assert scheduler.needs_confirmation(0.1, UpdateUrgency.REPLY)


def test_charts_wait_until_an_unconfirmed_frame_can_be_painted() -> None:
    scheduler = PageUpdateScheduler()
    for i in range(30):
        scheduler.record_frame_sent(i, new_statistics=True)
        scheduler.record_frame_painted(i + 0.04)
    scheduler.record_frame_sent(30.0, new_statistics=True, is_confirmed=False)
    assert not scheduler.is_secondary_due("chart", 30.03)
    assert scheduler.is_secondary_due("chart", scheduler.painted_at)
    assert scheduler.painted_at == pytest.approx(30.05, abs=1e-3)
