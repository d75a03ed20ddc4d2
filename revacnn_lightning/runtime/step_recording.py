"""Records one training step while it runs, whoever runs it: a Trainer, or a loop of your own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from revacnn_lightning.runtime.recorded_step import RecordedStep
from revacnn_lightning.runtime.step_recorder import StepRecorder

__all__ = ["AddResult", "recording_step"]

log = logging.getLogger(__name__)

AddResult = Callable[[Any], None]  # gets what the step returns: a loss, or a dict with one


@contextmanager
def recording_step(
    make_recorder: Callable[[], StepRecorder], finish: Callable[[RecordedStep | None, str], None]
) -> Iterator[AddResult]:
    """Record the step that runs inside; it passes on what it returns by the yielded function.

    Args:
        make_recorder: makes the recorder of the step.
        finish: gets the recorded step, or None and what has failed. It is not called if the step
            itself raises.
    """
    try:
        recorder = make_recorder()
    except Exception as error:  # a bug of this package must not stop the training
        log.warning("The training step is not recorded", exc_info=True)
        finish(None, f"internal error ({type(error).__name__}: {error})")
        yield lambda _: None
        return
    with recorder.recording():
        yield recorder.add_result
    failure = recorder.failure
    finish(
        None if failure else recorder.step,
        "" if failure is None else f"internal error ({type(failure).__name__}: {failure})",
    )
