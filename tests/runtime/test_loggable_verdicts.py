"""Verdicts reach the loggers as figures, which fall to zero once the verdict is gone."""

from __future__ import annotations

import numpy as np

from revacnn_lightning.diagnostics.verdicts import MIN_BATCHES
from revacnn_lightning.protocol.evidence import LayerEvidence
from revacnn_lightning.protocol.messages import LayerInfo, Snapshot, Structure
from revacnn_lightning.runtime.loggable_verdicts import VerdictLogConverter

NAMES = ["activation", "gradient", "update_ratio"]


def snapshot(step: int, ratio: float) -> Snapshot:
    values = np.array([[1.0] * 4, [1.0] * 4, [ratio] * 4], np.float32)
    return Snapshot("run", 0, step, 0, step, 9, 1, 0.0, 1.0, [], 1.0, NAMES, values)


def test_verdicts_are_logged_and_fall_to_zero() -> None:
    logged = VerdictLogConverter()
    layer = LayerInfo("a", "Conv2d", 1, 4, (3, 3), (1, 1), 1, [0, 1, 2, 3])
    logged.receive(Structure("run", 0, 0, "Net", [layer]))
    for step in range(5, 5 + MIN_BATCHES):  # attached late: the movement is unknown
        logged.receive(snapshot(step, 0.1))
    figures, text = logged.update(None)
    assert figures == {"a/restless": 1.0}
    assert text.startswith("a: restless, each step changes")
    assert logged.update(None) == (figures, "")
    logged.receive(LayerEvidence("run", 0, 30, "a", 4, provably_dead=[1, 2]))
    for step in range(30, 90):
        logged.receive(snapshot(step, 0.001))
    figures, text = logged.update(None)
    assert figures == {"a/provably_dead": 2.0, "a/restless": 0.0}
    assert "a: provably dead, 2 of 4" in text
