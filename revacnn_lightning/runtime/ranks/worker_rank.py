"""What all ranks but the first do: they execute its instructions before the same batch."""

from __future__ import annotations

import logging
from collections.abc import Callable

from revacnn_lightning.errors import EditFailedError
from revacnn_lightning.runtime.batch import TrainingBatch
from revacnn_lightning.runtime.controls import ControllableTraining, set_revertibly
from revacnn_lightning.runtime.ranks.agreement import RankActionBeforeBatch
from revacnn_lightning.runtime.ranks.connected_rank import RankWithProcessGroup
from revacnn_lightning.runtime.ranks.instructions import (
    ApplySetting,
    Instruction,
    PerformPlan,
    Proceed,
    SaveCheckpoint,
    StopTraining,
    decode_instruction,
)
from revacnn_lightning.runtime.ranks.side_group import LostRankError, SideProcessGroup
from revacnn_lightning.runtime.ranks.worker_recording import WorkerRecording
from revacnn_lightning.steering import Editor, EditPlan
from revacnn_lightning.telemetry import Recorder

__all__ = ["WorkerRank"]

log = logging.getLogger(__name__)


class WorkerRank(RankWithProcessGroup):
    """Executes what `RankZero` instructs. It is the editor's `Peers`.

    Args:
        group: the process group of all ranks.
        editor: edits the replica of this rank.
        controls: controls the training in this process.
        recorder: records the statistics of this rank while a viewer is attached to the run.
        report_error: lets rank 0 show an internal error.
    """

    def __init__(
        self,
        group: SideProcessGroup,
        editor: Editor,
        controls: ControllableTraining,
        recorder: Recorder,
        report_error: Callable[[str], None],
    ) -> None:
        super().__init__(group)
        assert self.statistics is not None
        self.recording = WorkerRecording(recorder, self.statistics, report_error)
        self._editor = editor
        self._controls = controls
        self._is_preparing = False
        editor.peers = self

    @property
    def needs_probe(self) -> bool:
        """Whether rank 0 needs to know how training uses the network in this one."""
        return self._is_preparing

    def begin_batch(self, make_batch: Callable[[], TrainingBatch]) -> None:
        """Do what rank 0 instructs before this batch, which is described only if necessary."""
        if self._agreement is None:
            return
        try:
            action = self._arrive(self._agreement)
            if action is None:
                return
            self._is_preparing |= action != RankActionBeforeBatch.NOTHING
            if action == RankActionBeforeBatch.STOP:
                self._execute_instructions(make_batch())
            if self._agreement is not None:
                self._agreement.start(RankActionBeforeBatch.NOTHING)
        except LostRankError as error:
            self._lose(error)

    def close(self, *, is_clean: bool) -> None:
        super().close(is_clean=is_clean)
        self.recording.close()

    # ------------------------------------------------------------------ instructions

    def _execute_instructions(self, batch: TrainingBatch) -> None:
        while True:
            instruction = decode_instruction(self._reached.receive_bytes())
            if isinstance(instruction, Proceed):
                if instruction.is_last:
                    self._agreement = None
                elif instruction.is_urgent and self._agreement is not None:
                    self._agreement.expedite_next()
                return
            self._execute(instruction, batch)

    def _execute(self, instruction: Instruction, batch: TrainingBatch) -> None:
        try:
            if isinstance(instruction, PerformPlan):
                with self.recording.hooks_suspended_for_edit():
                    if instruction.adopts_replaced:
                        self._editor.adopt_replaced_layers()
                    self._editor.perform_planned(instruction.plan, batch.make_probe)
            elif isinstance(instruction, ApplySetting):
                self._set_value(instruction)
            elif isinstance(instruction, SaveCheckpoint):
                self._save(instruction)
            elif isinstance(instruction, StopTraining):
                self._controls.stop()
        except LostRankError:
            raise
        except EditFailedError as error:  # rank 0 replies to the request
            log.info("%s was not carried out: %s", type(instruction).__name__, error)

    def _set_value(self, instruction: ApplySetting) -> None:
        restore, failure = None, ""
        try:
            _, restore = set_revertibly(instruction.command, self._controls)
        except Exception as error:  # rank 0 must learn of it
            log.warning("%s was not carried out", instruction.command, exc_info=True)
            failure = f"{type(error).__name__}: {error}"
        try:
            self._reached.check_agreement(0, failure)
        except EditFailedError:
            if restore is not None:
                restore()
            raise

    def _save(self, instruction: SaveCheckpoint) -> None:
        failure = ""
        try:
            self._controls.save_checkpoint(instruction.name)
        except Exception as error:  # rank 0 must learn of it
            log.warning("The checkpoint %s could not be saved", instruction.name, exc_info=True)
            failure = f"{type(error).__name__}: {error}"
        self._reached.check_agreement(0, failure)

    # ------------------------------------------------------------------ peers

    def announce(self, plan: EditPlan) -> None:
        """Only rank 0 announces plans.

        Raises:
            EditFailedError: always.
        """
        raise EditFailedError("only rank 0 of a training plans edits")
