"""`Pause`: which batches must wait."""

from __future__ import annotations

from revacnn_lightning.protocol.requests import ControlRun
from revacnn_lightning.runtime.pause import Pause


def waits(pause: Pause, *epochs: int) -> list[bool]:
    """Return for each of the next batches, given by its epoch, whether it must wait."""
    return [pause.must_wait(epoch) for epoch in epochs]


def test_batches_wait_between_pause_and_resume():
    pause = Pause()
    assert waits(pause, 0) == [False]
    assert pause.apply(ControlRun("pause")) == "Paused"
    assert waits(pause, 0, 0) == [True, True]
    assert pause.apply(ControlRun("resume")) == "Resumed"
    assert waits(pause, 0, 0) == [False, False]


def test_a_step_lets_one_batch_pass_and_pauses_a_running_run():
    pause = Pause()
    for _ in range(2):
        assert pause.apply(ControlRun("step")) == "Training one batch, then pausing"
        assert waits(pause, 0, 0, 0) == [False, True, True]


def test_a_step_of_several_batches_lets_them_pass_across_epochs():
    pause = Pause()
    command = ControlRun("step", batches=3)
    assert pause.apply(command, epoch=4) == "Training 3 batches, then pausing"
    assert pause.describe() == "pauses in 3 batches"
    assert waits(pause, 4, 4) == [False, False]
    assert pause.describe() == "pauses after the next batch"
    assert waits(pause, 5) == [False]
    assert pause.describe() == "pauses before the next batch"
    assert waits(pause, 5) == [True]


def test_an_epoch_is_trained_to_its_end():
    pause = Pause()
    command = ControlRun("finish_epoch")
    assert pause.apply(command, epoch=4) == "Training to the end of epoch 5, then pausing"
    assert pause.describe() == "pauses at the end of epoch 5"
    assert waits(pause, 4, 4, 4, 5, 5) == [False, False, False, True, True]
    pause.apply(command, epoch=5)  # pressed again between two epochs: the whole next one
    assert waits(pause, 5, 5, 6) == [False, False, True]


def test_the_last_action_wins():
    pause = Pause()
    pause.apply(ControlRun("step", batches=9))
    pause.apply(ControlRun("pause"))
    assert waits(pause, 0) == [True]
    pause.apply(ControlRun("finish_epoch"), epoch=2)
    pause.apply(ControlRun("step"), epoch=2)
    assert waits(pause, 2, 2) == [False, True]
    pause.apply(ControlRun("finish_epoch"), epoch=2)
    pause.apply(ControlRun("resume"), epoch=2)
    assert waits(pause, 2, 3) == [False, False]
    assert pause.describe() == ""
