"""One training batch: where training is, what the batch holds, and what is published of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from revacnn_lightning.protocol.messages import Snapshot
from revacnn_lightning.protocol.requests import (
    Freeze,
    Redo,
    RequestBody,
    ScaleLearningRate,
    Undo,
    Unfreeze,
)
from revacnn_lightning.runtime.batch_classes import BatchClasses
from revacnn_lightning.runtime.batch_images import Images
from revacnn_lightning.runtime.image_predictions import LabelAndClassNames
from revacnn_lightning.steering import ForwardProbe
from revacnn_lightning.telemetry import Recording

__all__ = [
    "BatchContext",
    "BatchMetadata",
    "BatchRate",
    "Progress",
    "TrainingBatch",
    "build_snapshot",
]


@dataclass(frozen=True)
class Progress:
    """The position of the training. ``step`` counts batches from 0; unknown totals are 0."""

    step: int = 0
    epoch: int = 0
    batch_index: int = 0
    batches_per_epoch: int = 0
    max_epochs: int = 0

    @property
    def is_last_of_epoch(self) -> bool:
        """Whether the epoch ends with this batch; False if its length is unknown."""
        return self.batch_index + 1 == self.batches_per_epoch


def make_probe_without_forwards() -> ForwardProbe:
    """Return a probe that runs no forward. It suffices for a network that was traced before."""
    return ForwardProbe(forwards=())


@dataclass(frozen=True)
class TrainingBatch:
    """A training batch, its position in the training, and whether edits are possible before it.

    Attributes:
        progress: where training is.
        make_probe: makes the forwards of samples of this batch; called only when needed.
        is_probe_ready: returns whether it is known how training uses the network.
        get_images: returns what `find_images` finds in the batch; called only when needed.
        get_input: returns the first sample of the batch, (channels, ...); called only when needed.
        get_truth: returns the class of that sample, as far as known; called only when needed.
        get_classes: returns the classes of all samples, as far as known; called only when needed.
        get_nbytes: returns the size of the tensors of the batch, in bytes; called only when needed.
        is_loss_ready: returns whether the loss of edits can be predicted, or never can be.
        can_edit: False in the middle of an accumulation window, where edits must wait.
        edit_refusal: why this training cannot be edited; "" if it can.
        can_freeze: whether filters can be frozen, and learning rates scaled, all the same.
        loss_scale: the factor by which mixed precision multiplies the loss.
    """

    progress: Progress = Progress()
    make_probe: Callable[[], ForwardProbe] = make_probe_without_forwards
    is_probe_ready: Callable[[], bool] = lambda: True
    get_images: Callable[[], Images | None] = lambda: None
    get_input: Callable[[], Tensor | None] = lambda: None
    get_truth: Callable[[], LabelAndClassNames] = LabelAndClassNames
    get_classes: Callable[[], BatchClasses] = BatchClasses
    get_nbytes: Callable[[], int] = int
    is_loss_ready: Callable[[], bool] = lambda: True
    can_edit: bool = True
    edit_refusal: str = ""
    can_freeze: bool = False
    loss_scale: Tensor | float = 1.0

    @property
    def step(self) -> int:
        return self.progress.step

    @cached_property
    def images(self) -> Images | None:
        """The images, (B, channels, H, W) or a list of B (channels, H, W), B >= 1.

        Signals are (B, channels, L) or (B, L, features), volumes (B, channels, D, H, W). None if
        the batch holds none of these.
        """
        images = self.get_images()
        return None if images is None or not len(images) else images

    def why_edit_refused(self, edit: RequestBody) -> str:
        """Return why this training cannot be edited in this way; "" if it can.

        The editor decides which edits an undo or a redo concerns.
        """
        allowed = Freeze | Unfreeze | ScaleLearningRate | Undo | Redo
        return "" if self.can_freeze and isinstance(edit, allowed) else self.edit_refusal

    def without_data(self) -> TrainingBatch:
        """Return the batch without references to its tensors."""
        return TrainingBatch(
            self.progress,
            is_probe_ready=self.is_probe_ready,
            is_loss_ready=self.is_loss_ready,
            can_edit=self.can_edit,
            edit_refusal=self.edit_refusal,
            can_freeze=self.can_freeze,
        )


@dataclass(frozen=True)
class BatchContext:
    """The batch that messages describe, handed to every `Collector`.

    Attributes:
        run: id of the run.
        version: structure version.
        batch: the batch that was just trained, or the next one if the run is paused.
        is_paused: True if no batch was trained since the last call.
    """

    run: str
    version: int
    batch: TrainingBatch
    is_paused: bool = False

    @property
    def step(self) -> int:
        return self.batch.step

    @property
    def images(self) -> Images | None:
        """See `TrainingBatch.images`."""
        return self.batch.images


@dataclass
class BatchRate:
    """Training batches per second, smoothed over about the last second."""

    value: float = 0.0
    _last: float = field(default_factory=time.monotonic)

    def update(self) -> float:
        """Count a finished batch and return the current rate."""
        now = time.monotonic()
        elapsed = max(now - self._last, 1e-6)
        self._last = now
        weight = min(1.0, elapsed)  # batches longer than a second are not smoothed
        self.value += weight * (1 / elapsed - self.value) if self.value else 1 / elapsed
        return self.value


@dataclass
class BatchMetadata:
    """What is published with the recording of a batch.

    The recording may be on a GPU, with the loss; it is read one batch later.
    """

    progress: Progress
    batches_per_second: float
    loss: float | None  # if it is no tensor
    loss_factor: float
    learning_rates: list[float]
    metrics: dict[str, float]
    time: float = field(default_factory=time.time)  # seconds since 1970
    version: int = -1  # known only when the batch has ended: its forward may change the order
    is_sample: bool = False  # whether the history keeps this batch


def build_snapshot(run: str, recording: Recording) -> Snapshot:
    """Return the message of a recording whose metadata is the `BatchMetadata` of its batch."""
    metadata: BatchMetadata = recording.metadata
    progress = metadata.progress
    loss = metadata.loss if recording.loss is None else recording.loss
    return Snapshot(
        run=run,
        version=metadata.version,
        step=progress.step,
        epoch=progress.epoch,
        batch_index=progress.batch_index,
        batches_per_epoch=progress.batches_per_epoch,
        max_epochs=progress.max_epochs,
        time=metadata.time,
        loss=None if loss is None else loss / metadata.loss_factor,
        learning_rates=metadata.learning_rates,
        batches_per_second=metadata.batches_per_second,
        statistics=recording.names,
        values=recording.values,
        metrics=metadata.metrics,
        sampling_intervals=recording.sampling_intervals,
        nonfinite_gradients=recording.nonfinite,
    )
