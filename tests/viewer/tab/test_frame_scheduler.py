from __future__ import annotations

import pytest

from viewer.tab.frame_scheduler import LONGEST, LOST, PERIOD, PERIODS, FrameScheduler


def test_nothing_is_sent_before_the_page_has_answered() -> None:
    pace = FrameScheduler()
    assert pace.wait(0.0, numbers=True) == 0
    pace.sent(0.0, numbers=True)
    assert pace.wait(1.0, numbers=True) is None
    pace.answered(1.0)
    assert pace.wait(1.0, numbers=True) == 0


def test_an_answer_that_does_not_come_is_given_up() -> None:
    pace = FrameScheduler()
    pace.sent(0.0, numbers=True)
    assert pace.wait(LOST - 0.1, numbers=False) is None
    assert pace.wait(LOST, numbers=False) == 0


@pytest.mark.parametrize("hz", [10, 50, 200])
def test_numbers_are_sent_so_often_on_average(hz: int) -> None:
    pace, frames = FrameScheduler(), 0
    for i in range(10 * hz):
        now = i / hz
        if pace.wait(now, numbers=True) == 0:
            pace.sent(now, numbers=True)
            pace.answered(now + 0.004)
            frames += 1
    assert frames <= 10 / PERIOD + 2
    assert frames >= 99


def test_numbers_at_ten_a_second_never_wait_even_if_they_come_unevenly() -> None:
    pace = FrameScheduler()
    for i in range(100):
        now = i * 0.1 + (0.02 if i % 2 else 0.0)
        assert pace.wait(now, numbers=True) == 0
        pace.sent(now, numbers=True)
        pace.answered(now + 0.03)


def test_a_frame_without_numbers_does_not_hold_up_the_next_numbers() -> None:
    pace = FrameScheduler()
    pace.sent(0.0, numbers=True)
    pace.answered(0.01)
    assert pace.wait(0.02, numbers=False) == pytest.approx(0.02)
    pace.sent(0.09, numbers=False)
    pace.answered(0.095)
    assert pace.wait(0.1, numbers=True) == 0


def test_a_page_that_lags_gets_fewer_charts() -> None:
    def charts(lag: float) -> int:
        pace, count = FrameScheduler(), 0
        for i in range(100):
            now = 0.11 * i
            pace.sent(now, numbers=True)
            pace.answered(now + lag)
            if pace.is_due("chart", now + lag):
                pace.spent("chart", now + lag)
                count += 1
        return count

    assert charts(0.01) == 50
    assert 20 < charts(0.09) < 45


@pytest.mark.parametrize("what", PERIODS)
def test_charts_and_pictures_wait_for_the_numbers_to_be_painted(what: str) -> None:
    pace = FrameScheduler()
    pace.sent(0.0, numbers=True)
    assert not pace.is_due(what, 0.05)
    pace.answered(0.06)
    assert pace.is_due(what, 0.06)
    pace.spent(what, 0.06)
    assert not pace.is_due(what, 0.07)
    assert pace.is_due(what, 0.06 + PERIODS[what])


def test_even_a_page_that_lags_by_seconds_gets_pictures_now_and_then() -> None:
    pace = FrameScheduler()
    for i in range(20):
        pace.sent(10.0 * i, numbers=True)
        pace.answered(10.0 * i + 4)
    pace.spent("pictures", 194.0)
    assert not pace.is_due("pictures", 195.0)
    assert pace.is_due("pictures", 194.0 + LONGEST)


def test_an_edited_network_is_shown_without_credit_but_never_two_of_them() -> None:
    pace = FrameScheduler()
    pace.sent(0.0, numbers=True)
    assert pace.wait(0.01, numbers=True) is None
    assert pace.wait(0.01, numbers=False, edited=True) == 0
    pace.sent(0.01, numbers=False, edited=True)
    assert pace.wait(0.02, numbers=False, edited=True) is None
    pace.answered(0.05)
    assert pace.wait(0.05, numbers=False, edited=True) == 0
    pace.sent(0.05, numbers=True)
    assert pace.wait(0.06, numbers=False, edited=True) == 0  # the last one was answered


def test_pictures_follow_an_edit_at_once() -> None:
    pace = FrameScheduler()
    pace.spent("pictures", 0.0)
    pace.sent(0.0, numbers=False, edited=True)
    pace.answered(0.03)
    assert pace.is_due("pictures", 0.03)
