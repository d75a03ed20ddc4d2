from __future__ import annotations

import pytest

from revacnn_lightning.runtime.pause import Pause


def test_a_run_goes_on_until_it_is_paused_and_after_it_is_resumed():
    pause = Pause()
    assert not pause.holds()
    assert pause.take("pause") == "Paused"
    assert pause.holds()
    assert pause.holds()
    assert pause.take("resume") == "Resumed"
    assert not pause.holds()
    assert not pause.holds()


def test_a_step_lets_one_batch_through_and_pauses_a_run_that_was_not():
    pause = Pause()
    for _ in range(2):
        assert pause.take("step") == "Trained one batch"
        assert [pause.holds() for _ in range(3)] == [False, True, True]


def test_what_comes_last_counts():
    pause = Pause()
    pause.take("step")
    pause.take("pause")
    assert pause.holds()
    with pytest.raises(KeyError):
        pause.take("wait")
