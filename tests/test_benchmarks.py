"""The training loops of the benchmarks do what the callback needs of Lightning."""

from __future__ import annotations

from contextlib import closing

from benchmarks.training_loops import MonitoredTraining, convnet


def test_a_monitored_training_records_what_its_client_receives() -> None:
    with closing(MonitoredTraining(convnet())) as training:
        training.begin_block()
        for _ in range(3):
            training.step()
        assert training.session.is_recording
        assert "training_step" not in vars(training.trainer.strategy)  # recorded, and restored
        training.end_block()
