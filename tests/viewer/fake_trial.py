"""The result of a trial of edits that never happened."""

from __future__ import annotations

import math

from revacnn_lightning.protocol.requests import TryEdits
from revacnn_lightning.protocol.trial_state import TrialState

__all__ = ["fake_trial"]


def fake_trial(request_id: str, body: TryEdits, step: int) -> TrialState:
    """Return the state of a trial that waits for a decision."""
    losses = [0.5 + 0.1 * math.sin(i) for i in range(body.batches)]
    edited = [loss - 0.012 + 0.01 * math.cos(3 * i) for i, loss in enumerate(losses)]
    return TrialState(
        "undecided",
        request_id,
        ["Remove conv2 · filters 3, 36"],
        step,
        body.batches,
        2 * body.batches,
        losses,
        edited,
        -0.012,
        -0.0201,
        -0.0039,
        3.1,
        12_300_000,
    )
