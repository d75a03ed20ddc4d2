"""`Pause`: which batches must wait."""

from __future__ import annotations

import pytest

from revacnn_lightning.runtime.pause import Pause


def test_batches_wait_between_pause_and_resume():
    pause = Pause()
    assert not pause.must_wait()
    assert pause.apply("pause") == "Paused"
    assert pause.must_wait()
    assert pause.must_wait()
    assert pause.apply("resume") == "Resumed"
    assert not pause.must_wait()
    assert not pause.must_wait()


def test_a_step_lets_one_batch_pass_and_pauses_a_running_run():
    pause = Pause()
    for _ in range(2):
        assert pause.apply("step") == "Trained one batch"
        assert [pause.must_wait() for _ in range(3)] == [False, True, True]


def test_the_last_action_wins():
    pause = Pause()
    pause.apply("step")
    pause.apply("pause")
    assert pause.must_wait()
    with pytest.raises(KeyError):
        pause.apply("wait")
    assert pause.must_wait()
