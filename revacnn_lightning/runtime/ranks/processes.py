"""All processes of one fit, as the callback in each of them uses them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from torch import distributed as dist

from revacnn_lightning.protocol.rank_messages import TroubledRank
from revacnn_lightning.runtime.batch import TrainingBatch
from revacnn_lightning.runtime.controls import ControllableTraining
from revacnn_lightning.runtime.ranks.all_ranks import SingleRank, StopReasons
from revacnn_lightning.runtime.ranks.data_parallel_rewrapper import DataParallelRewrapper
from revacnn_lightning.runtime.ranks.rank_heartbeats import (
    HeartbeatAddress,
    HeartbeatReceiver,
    HeartbeatSender,
)
from revacnn_lightning.runtime.ranks.rank_watch import RankWatch
from revacnn_lightning.runtime.ranks.rank_zero import RankZero
from revacnn_lightning.runtime.ranks.side_group import LostRankError, SideProcessGroup
from revacnn_lightning.runtime.ranks.worker_rank import WorkerRank
from revacnn_lightning.runtime.ranks.worker_recording import WorkerRecording
from revacnn_lightning.steering import Editor
from revacnn_lightning.steering.execution.peers import checksum_and_nonfinite_count
from revacnn_lightning.telemetry import Recorder

__all__ = ["FitProcessCoordinator"]

log = logging.getLogger(__name__)

LOSS_SECONDS = 0.5  # after an exception, until the end of another rank is known


class FitProcessCoordinator:
    """Coordinates the processes of one fit: this one only, or rank 0 and the workers.

    Creating it is a collective of all processes: the callback must be in each.

    Args:
        trainer: a Trainer during a fit.

    Attributes:
        ranks: what the session in rank 0 uses to change all; of another rank, itself only.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._is_first = trainer.is_global_zero
        self._model: DataParallelRewrapper | None = None
        self._worker: WorkerRank | None = None
        self._worker_editor: Editor | None = None
        self._group: SideProcessGroup | None = None
        self._rank_zero: RankZero | None = None
        self._watch = RankWatch(range(1, trainer.world_size))
        self._receiver: HeartbeatReceiver | None = None
        self._sender: HeartbeatSender | None = None
        self._batches = 0  # that this rank has begun
        if trainer.world_size > 1:
            refusal = self._connect()
            if self._is_first:
                size = trainer.world_size
                self._rank_zero = RankZero(size, self._group, refusal, self._watch)
        self.ranks: SingleRank | RankZero = self._rank_zero or SingleRank()
        if self._group is not None:
            self._exchange_heartbeats(self._group)

    def _connect(self) -> str:
        """Connect the processes; return why that is not possible, or ""."""
        if not (dist.is_available() and dist.is_initialized() and dist.is_gloo_available()):
            return (
                "the processes of this training do not use torch.distributed with gloo, so they "
                "cannot be changed together"
            )
        try:
            self._group = SideProcessGroup()
        except LostRankError as error:
            log.warning("ReVACNN cannot connect the processes of this training", exc_info=True)
            return (
                f"the processes of this training cannot be connected ({error}); add the callback "
                "in all of them"
            )
        return ""

    def _exchange_heartbeats(self, group: SideProcessGroup) -> None:
        def get_step() -> int:
            return self._batches

        try:
            if self._is_first:
                is_local = self._trainer.num_nodes == 1
                self._receiver = HeartbeatReceiver(self._watch, get_step, is_local=is_local)
        except OSError:
            log.warning("No port is free to receive heartbeats of other ranks", exc_info=True)
        try:
            if self._is_first:
                receiver = self._receiver
                group.send_bytes(b"" if receiver is None else receiver.address.encode())
            elif data := group.receive_bytes():
                address = HeartbeatAddress.decode(data)
                self._sender = HeartbeatSender(address, group.rank, get_step)
        except LostRankError:
            log.warning("The ranks of this training cannot be watched", exc_info=True)
        except OSError:
            log.warning("This rank cannot send heartbeats to rank 0", exc_info=True)

    def publish_states(self, publish: Callable[[int, list[TroubledRank]], None]) -> None:
        """Let a thread call ``publish(number of ranks, ranks in trouble)`` in rank 0."""
        if self._receiver is not None:
            size = self._trainer.world_size
            self._receiver.publish = lambda states: publish(size, states)

    def describe_first_lost_rank(self) -> str:
        """Return which other rank has failed or ended first, in words; "" if none has.

        Its end may be the reason for an exception in this one, so it waits a moment for it.
        """
        return "" if self._receiver is None else self._watch.describe_first_lost_rank(LOSS_SECONDS)

    def report_error(self, text: str) -> None:
        """Let rank 0 show an internal error of ReVACNN in this rank, which still trains."""
        if self._sender is not None:
            self._sender.report_error(text)
        if self._worker is None and not self._is_first:
            self._leave_group(is_clean=False)  # rank 0 must not wait for this one

    @property
    def needs_probe(self) -> bool:
        """Whether the first process wants to know how training uses the network in this one."""
        return self._worker is not None and self._worker.needs_probe

    def start(
        self, editor: Editor, controls: ControllableTraining, make_recorder: Callable[[], Recorder]
    ) -> None:
        """Edit with ``editor``, control with ``controls`` and record in this process."""
        self._model = DataParallelRewrapper(self._trainer, editor.version)
        if self._rank_zero is not None:
            editor.peers = self._rank_zero
        elif self._group is not None:
            self._worker_editor = editor
            self._worker = WorkerRank(
                self._group, editor, controls, make_recorder(), self.report_error
            )
        rank = self._rank_zero or self._worker
        if rank is not None and rank.statistics is not None:
            rank.statistics.get_facts = lambda: checksum_and_nonfinite_count(
                editor.model, controls.optimizers
            )

    def begin_batch(self, make_batch: Callable[[], TrainingBatch]) -> None:
        """Stop before this batch if that is agreed; do then what the first process orders."""
        self._batches += 1
        if self._rank_zero is not None:
            self._rank_zero.begin_batch()
        elif self._worker is not None:
            try:
                self._worker.begin_batch(make_batch)
            except Exception as error:  # a bug of this package must not stop the training
                log.warning("This process can no longer be edited", exc_info=True)
                self.report_error(f"{type(error).__name__}: {error}")
                self._leave_group(is_clean=False)  # rank 0 gets an error

    @property
    def recording(self) -> WorkerRecording | None:
        """What a rank other than 0 records; None in rank 0."""
        return None if self._worker is None else self._worker.recording

    def resume_all_ranks(self, get_stop_reasons: Callable[[], StopReasons] | None) -> None:
        """Let all processes train this batch.

        Args:
            get_stop_reasons: returns why to stop again. None if requests are served no more. Only
                the first process calls it.
        """
        if self._rank_zero is not None:
            self._rank_zero.resume_all_ranks(get_stop_reasons)

    def update_model(self, editor: Editor | None) -> None:
        """Wrap the edited model again, in all processes together."""
        if self._model is not None and editor is not None:
            self._model.update(editor.version)

    def close(self, *, is_clean: bool, failure: str | None = None) -> None:
        """Leave the other ranks; after an error, without waiting for them.

        Args:
            is_clean: whether the others leave, too.
            failure: the exception that has ended the training of this rank; None if it has
                finished.
        """
        if self._sender is not None:
            self._sender.close(failure)
        if self._receiver is not None:
            self._receiver.close()
        self._sender = self._receiver = None
        self._leave_group(is_clean=is_clean)
        if self._worker_editor is not None:
            self._worker_editor.close()  # not earlier: frozen filters stay frozen after an error
            self._worker_editor = None

    def _leave_group(self, *, is_clean: bool) -> None:
        rank = self._worker or self._rank_zero
        if rank is not None:
            rank.close(is_clean=is_clean)
        elif self._group is not None:
            self._group.close()
        self._group = self._worker = self._rank_zero = self._model = None
