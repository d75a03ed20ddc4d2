"""Where a training is, and what one of its batches is told with."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from torch import Tensor

from revacnn_lightning.protocol.messages import Snapshot
from revacnn_lightning.runtime.sample_forward import to_float
from revacnn_lightning.telemetry import Recording

__all__ = ["BatchMetadata", "BatchRate", "Progress", "snapshot"]


@dataclass
class Progress:
    """Where the training is. ``step`` counts training batches from 0; unknown totals are 0."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    batches: int = 0
    epochs: int = 0


@dataclass
class BatchRate:
    """Training batches per second, smoothed over about the last second."""

    value: float = 0.0
    _last: float = field(default_factory=time.monotonic)

    def tick(self) -> float:
        """A batch has ended; the rate now."""
        now = time.monotonic()
        elapsed = max(now - self._last, 1e-6)
        self._last = now
        share = min(1.0, elapsed)  # of a second: long batches count at once
        self.value += share * (1 / elapsed - self.value) if self.value else 1 / elapsed
        return self.value


@dataclass
class BatchMetadata:
    """What goes with a recording. A GPU's recording, and so the loss, is read one batch later."""

    progress: Progress
    batches_per_second: float
    loss: Tensor | float | None
    loss_factor: float
    learning_rates: list[float]
    metrics: dict[str, float]
    version: int = -1


def snapshot(run: str, recording: Recording) -> Snapshot:
    """The message of a recording whose tag are the `BatchMetadata` of its batch."""
    facts: BatchMetadata = recording.metadata
    progress = facts.progress
    loss = to_float(facts.loss)
    return Snapshot(
        run=run,
        version=facts.version,
        step=progress.step,
        epoch=progress.epoch,
        batch_index=progress.batch,
        batches_per_epoch=progress.batches,
        max_epochs=progress.epochs,
        time=time.time(),
        loss=None if loss is None else loss / facts.loss_factor,
        learning_rates=facts.learning_rates,
        batches_per_second=facts.batches_per_second,
        statistics=recording.names,
        values=recording.values,
        metrics=facts.metrics,
        sampling_intervals=recording.sampling_intervals,
        nonfinite_gradients=recording.nonfinite,
    )
