"""Requests that need a training batch, to a run that is paused."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from revacnn_lightning import EditRefusedError, Run
from revacnn_lightning.client import run_classes
from revacnn_lightning.protocol.messages import Done
from tests.client.simulated_run import SimulatedRun, status, structure

NEED_A_BATCH: dict[str, Callable[[Run], object]] = {
    "evidence": lambda run: run.evidence("a"),
    "ranks": lambda run: run.compare_ranks("a"),
    "lens": lambda run: run.class_lens("a"),
    "answers": lambda run: run.class_answers(1),
    "confusion": lambda run: run.confusion(),
}


@pytest.mark.parametrize("name", list(NEED_A_BATCH))
def test_it_waited_for_its_timeout(
    training: SimulatedRun, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_classes, "PAUSED_SECONDS", 0.0)
    training.publish(structure())
    training.until(training.run.poll)
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(NEED_A_BATCH[name], training.run)
        training.reply(lambda request: Done(request.id, "", 7))
        while not waiting.done():
            training.publish(status("paused"))
            time.sleep(0.01)
        with pytest.raises(EditRefusedError, match="paused before batch 7"):
            waiting.result()
