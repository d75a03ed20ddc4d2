"""When to publish the state of a run: on every change, and at least once per second."""

from __future__ import annotations

import time

from revacnn_lightning.protocol.messages import TrainingState

__all__ = ["HeartbeatSchedule"]

HEARTBEAT_SECONDS = 1.0


class HeartbeatSchedule:
    """Decides when the state of a run is published: when it has changed, and each second.

    Attributes:
        state: the last published state.
    """

    def __init__(self) -> None:
        self.state: TrainingState = "training"
        self._sent_at = 0.0

    def is_due(self, state: TrainingState) -> bool:
        """Return whether the state has changed or the last heartbeat was a second ago."""
        return state != self.state or time.monotonic() - self._sent_at > HEARTBEAT_SECONDS

    def record(self, state: TrainingState) -> None:
        """Record that ``state`` is published now."""
        self.state = state
        self._sent_at = time.monotonic()
