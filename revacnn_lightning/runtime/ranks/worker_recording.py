"""What a rank other than 0 records of its batches while a viewer is attached to the run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

from revacnn_lightning.runtime.metric_reader import is_on_gpu, is_scalar, to_float
from revacnn_lightning.runtime.ranks.rank_statistics import RankStatistics
from revacnn_lightning.telemetry import Recorder, Recording

__all__ = ["WorkerRecording"]

log = logging.getLogger(__name__)


class WorkerRecording:
    """Records each batch from which rank 0 wants statistics. Each is `begin_batch` ... `end_batch`.

    An error ends recording in this rank; the statistics are then those of the others.

    Args:
        recorder: records the statistics of the replica of this rank.
        statistics: receives what is recorded.
        report_error: lets rank 0 show an internal error.
    """

    def __init__(
        self,
        recorder: Recorder,
        statistics: RankStatistics,
        report_error: Callable[[str], None],
    ) -> None:
        self._recorder = recorder
        self._statistics = statistics
        self._report_error = report_error
        self._is_attached = self._is_recording = self._has_failed = False

    def begin_batch(self, get_loss_scale: Callable[[], Tensor | float]) -> None:
        """Start to record the batch if a viewer is attached to the run."""
        self._statistics.discard_completed()
        names = self._statistics.recorded
        if not names or self._has_failed:
            if self._is_attached:
                self._recorder.detach()
            self._is_attached = self._is_recording = False
            return
        with self._ends_on_error():
            if not self._is_attached:
                self._recorder.update_structure()
                self._recorder.attach()
                self._is_attached = True
            self._recorder.request_statistics(names)
            self._recorder.begin_batch(loss_scale=get_loss_scale())
            self._is_recording = True

    def end_batch(self, loss: Tensor | float | None, loss_factor: float) -> None:
        """Add the statistics of the batch; see `Session.end_batch`."""
        if not self._is_recording:
            return
        self._is_recording = False
        with self._ends_on_error():
            loss = loss if is_scalar(loss) else None
            on_gpu = loss if is_on_gpu(loss) else None
            known = None if loss is None or on_gpu is not None else to_float(loss)
            arrived = self._recorder.end_batch(
                grad_scale=loss_factor, loss=on_gpu, metadata=(known, loss_factor)
            )
            if arrived is not None:
                self._add(arrived)

    def _add(self, recording: Recording) -> None:
        known, factor = recording.metadata
        loss = known if recording.loss is None else recording.loss
        self._statistics.add(
            recording.layers,
            recording.widths,
            recording.names,
            recording.values,
            None if loss is None else loss / factor,
            nonfinite=recording.nonfinite,
        )

    @contextmanager
    def hooks_suspended_for_edit(self) -> Iterator[None]:
        """Leave the modules without hooks while the network is edited."""
        if not self._is_attached:
            yield
            return
        self._recorder.flush()
        with self._recorder.hooks_suspended():
            yield
        self._recorder.update_structure()

    def close(self) -> None:
        """Remove everything from the model."""
        self._recorder.detach()
        self._is_attached = self._is_recording = False

    @contextmanager
    def _ends_on_error(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a bug of this package must not stop the training
            log.warning("This rank records no statistics any more", exc_info=True)
            self._report_error(f"it records no statistics ({type(error).__name__}: {error})")
            self._has_failed = True
            self.close()
