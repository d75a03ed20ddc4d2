"""Records training batches, and publishes them once they have arrived on the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from revacnn_lightning.history.history_recorder import HistoryRecorder
from revacnn_lightning.protocol.messages import Message, Snapshot
from revacnn_lightning.runtime.batch import (
    BatchMetadata,
    BatchRate,
    Progress,
    TrainingBatch,
    build_snapshot,
)
from revacnn_lightning.runtime.metric_reader import (
    METRICS_INTERVAL,
    MetricReader,
    is_on_gpu,
    is_scalar,
    to_float,
)
from revacnn_lightning.runtime.publish_schedule import MAX_DELAY_SECONDS, PublishSchedule
from revacnn_lightning.runtime.rank_merger import RankSnapshotMerger
from revacnn_lightning.runtime.snapshot_merger import SnapshotMerger
from revacnn_lightning.telemetry import Recorder, Recording

__all__ = ["BatchPublisher", "GetMetrics"]

GetMetrics = Callable[[], Mapping[str, Tensor | float]]


class BatchPublisher:
    """Records the batches that a viewer or the history needs, and publishes them.

    Args:
        run: id of the run.
        recorder: records the statistics.
        publish: sends a message to all viewers.
        update_structure: publishes the structure if the batch that just ended has changed it, and
            returns its version.
        history: keeps a sample of the batches; None if no history is kept.
        merger: merges the snapshots of several batches, or of several ranks; None if every batch
            has a snapshot.
        max_delay: seconds that a batch may wait for the next ones. Ranks do not wait.

    Attributes:
        is_recording: whether the current batch is recorded.
    """

    def __init__(
        self,
        run: str,
        recorder: Recorder,
        publish: Callable[[Message], None],
        update_structure: Callable[[], int],
        history: HistoryRecorder | None,
        merger: SnapshotMerger | RankSnapshotMerger | None = None,
        max_delay: float = MAX_DELAY_SECONDS,
    ) -> None:
        self.is_recording = False
        self._run = run
        self._recorder = recorder
        self._publish = publish
        self._update_structure = update_structure
        self._history = history
        self._metrics = MetricReader()
        self._rate = BatchRate()
        self._merger = merger or SnapshotMerger(0.0)
        self._schedule = PublishSchedule(max_delay)
        # All ranks add up the same batches.
        recorder.defers_recordings = max_delay > 0 and isinstance(self._merger, SnapshotMerger)
        self._order_version = recorder.order_version
        self._samples: list[int] = []  # steps of batches that the history keeps
        self._is_sample = False  # whether the history keeps the current batch
        self._last_reading = -METRICS_INTERVAL  # step at which metrics were read

    @property
    def batches_per_second(self) -> float:
        """How fast the run trains; 0 before the first recorded batch."""
        return self._rate.value

    def begin(self, batch: TrainingBatch, *, is_needed: bool) -> None:
        """Start to record the batch if ``is_needed``, by a viewer, or if the history samples it."""
        was_recording, history = self.is_recording, self._history
        self._is_sample = history is not None and history.is_due(batch.step)
        self.is_recording = is_needed or self._is_sample
        if self._is_sample and history is not None:
            history.begin_sample(batch.step, self._recorder.overhead)
        if self.is_recording:
            self._recorder.begin_batch(loss_scale=batch.loss_scale)
        elif was_recording:
            self._recorder.release_tensors()

    def end(
        self,
        progress: Progress,
        *,
        loss: Tensor | float | None,
        get_learning_rates: Callable[[], list[float]],
        get_metrics: GetMetrics,
        loss_factor: float,
    ) -> None:
        """Publish what has arrived on the host; see `Session.end_batch` for the arguments."""
        batches_per_second = self._rate.update()
        self._read_metrics(progress, get_metrics)
        if not self.is_recording:
            if self._recorder.has_pending:
                self.publish_recordings(self._recorder.completed())
            else:
                self.publish_pending()
            return
        loss = loss if is_scalar(loss) else None
        on_gpu = loss if is_on_gpu(loss) else None
        metadata = BatchMetadata(
            progress=progress,
            batches_per_second=batches_per_second,
            loss=None if loss is None or on_gpu is not None else to_float(loss),
            loss_factor=loss_factor,
            learning_rates=get_learning_rates(),
            metrics=self._metrics.newest,
            is_sample=self._is_sample,
        )
        arrived = self._recorder.end_batch(grad_scale=loss_factor, loss=on_gpu, metadata=metadata)
        ended = [] if arrived is None else [arrived]
        is_due = self._schedule.is_due() or progress.is_last_of_epoch
        if is_due or self._has_order_changed():
            ended += self._recorder.completed()
            self.publish_recordings(ended[:-1])  # before a structure that this batch has changed
            ended = ended[-1:]
        metadata.version = self._update_structure()
        self.publish_recordings(ended)

    def _has_order_changed(self) -> bool:
        """Return whether the last batch has shown another order of the layers."""
        previous, self._order_version = self._order_version, self._recorder.order_version
        return previous != self._order_version

    def publish_recordings(self, recordings: Sequence[Recording]) -> None:
        """Publish recordings that have arrived on the host, and keep samples in the history."""
        for recording in recordings:
            if recording.metadata.is_sample:
                self._samples.append(recording.metadata.progress.step)
            for snapshot in self._merger.add(build_snapshot(self._run, recording)):
                self._publish_snapshot(snapshot)

    def flush(self) -> None:
        """Wait for the device, and publish all batches that have not been published."""
        self.publish_recordings(self._recorder.flush())
        for snapshot in self._merger.finish():
            self._publish_snapshot(snapshot)

    def publish_pending(self) -> None:
        """Publish the batches since the last snapshot, before something else happens."""
        self.publish_recordings(self._recorder.completed())
        for snapshot in self._merger.flush():
            self._publish_snapshot(snapshot)

    def _publish_snapshot(self, snapshot: Snapshot) -> None:
        self._publish(snapshot)
        later = [step for step in self._samples if step > snapshot.step]
        if self._history is not None and len(later) < len(self._samples):
            self._history.add(snapshot)
        self._samples = later

    def _read_metrics(self, progress: Progress, get_metrics: GetMetrics) -> None:
        """Read the metrics if somebody is interested, and at the beginning of an epoch."""
        is_regular = progress.step % METRICS_INTERVAL == 0 and self.is_recording
        is_new_epoch = progress.batch_index == 0 and self._history is not None
        is_early = progress.step - self._last_reading < METRICS_INTERVAL
        if is_regular or self._is_sample or (is_new_epoch and not is_early):
            self._last_reading = progress.step
            arrived = self._metrics.read(progress.step, get_metrics())
        else:
            arrived = self._metrics.pop_arrived()
        if self._history is not None:
            for step, metrics in arrived:
                self._history.add_metrics(step, metrics)
