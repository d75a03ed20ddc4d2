"""What rank 0 does: it serves viewers, plans edits, and instructs the other ranks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from revacnn_lightning.errors import EditFailedError, EditRefusedError
from revacnn_lightning.protocol.requests import SettingCommand
from revacnn_lightning.runtime.ranks.agreement import RankActionBeforeBatch
from revacnn_lightning.runtime.ranks.all_ranks import StopReasons
from revacnn_lightning.runtime.ranks.connected_rank import RankWithProcessGroup
from revacnn_lightning.runtime.ranks.instructions import (
    ApplySetting,
    Instruction,
    PerformPlan,
    Proceed,
    SaveCheckpoint,
    StopTraining,
    Wait,
    encode_instruction,
)
from revacnn_lightning.runtime.ranks.rank_watch import RankWatch
from revacnn_lightning.runtime.ranks.side_group import LostRankError, SideProcessGroup
from revacnn_lightning.steering import EditPlan

__all__ = ["RankZero"]

log = logging.getLogger(__name__)

# While the run is paused, the others get an instruction this often, much more often than their
# collectives time out.
WAIT_SECONDS = 1.0
TROUBLE_SECONDS = 0.5  # after an exchange has failed, until the reason has arrived


class RankZero(RankWithProcessGroup):
    """Rank 0 of a training: it decides before each batch what all ranks do. It is the `AllRanks`.

    Args:
        size: the number of ranks.
        group: the process group of all ranks; None if they cannot reach each other.
        refusal: the reason why they cannot.
        watch: receives what happens to the others.
    """

    def __init__(
        self,
        size: int,
        group: SideProcessGroup | None,
        refusal: str = "",
        watch: RankWatch | None = None,
    ) -> None:
        super().__init__(group, refusal)
        self.size = size
        self._watch = RankWatch(range(1, size)) if watch is None else watch
        self.is_stopped = False
        self._has_arrived = False  # whether an exchange is to be started
        self._are_prepared = False  # to verify an edit by forwards
        self._has_replaced = False  # whether the others have to adopt replaced layers
        self._last_instruction = 0.0  # monotonic seconds

    # ------------------------------------------------------------------ a batch

    def begin_batch(self) -> None:
        """Stop with the others, if that is agreed. Call it once before every batch."""
        self.is_stopped = self._has_arrived = False
        if self._agreement is not None:
            try:
                action = self._arrive(self._agreement)
            except LostRankError as error:
                self._lose(error)
                return
            self._has_arrived = action is not None
            self.is_stopped = action == RankActionBeforeBatch.STOP
            self._are_prepared |= action == RankActionBeforeBatch.PREPARE

    def wait(self) -> None:
        try:
            if self.is_stopped and time.monotonic() >= self._last_instruction + WAIT_SECONDS:
                self._instruct(Wait())
        except LostRankError as error:
            self._lose(error)

    def resume_all_ranks(self, get_stop_reasons: Callable[[], StopReasons] | None) -> None:
        """Let all ranks train the batch. Call it once before every batch, whatever happens.

        Args:
            get_stop_reasons: returns why to stop again. It is called before few batches. None: the
                ranks never stop again, because no requests are served any more.
        """
        try:
            if get_stop_reasons is None:
                self._retire()
            elif self.is_stopped or self._has_arrived:
                self._agree_on_next(get_stop_reasons())
        except LostRankError as error:
            self._lose(error)

    def _agree_on_next(self, reasons: StopReasons) -> None:
        agreement = self._agreement
        if self.is_stopped:
            self._instruct(Proceed(is_urgent=reasons.is_pausing))
            self.is_stopped = False
            if reasons.is_pausing and agreement is not None:
                agreement.expedite_next()
        if self._has_arrived and agreement is not None:
            action = (
                RankActionBeforeBatch.STOP
                if reasons.is_wanted or reasons.is_pausing
                else RankActionBeforeBatch.NOTHING
            )
            if reasons.is_edit and not self._are_prepared:
                action = RankActionBeforeBatch.PREPARE
            instruction = None
            if self.statistics is not None:
                is_stopping = action == RankActionBeforeBatch.STOP
                instruction = self.statistics.next_instruction(
                    reasons.statistics, is_stopping=is_stopping
                )
            agreement.start(
                action,
                is_urgent=action != RankActionBeforeBatch.NOTHING,
                is_idle=not reasons.statistics,
                instruction=instruction,
            )

    def _retire(self) -> None:
        if self.is_stopped:
            self._instruct(Proceed(is_last=True))
            self._agreement, self.is_stopped = None, False
        elif self._has_arrived and self._agreement is not None:
            self._agreement.start(RankActionBeforeBatch.STOP, is_urgent=True)

    def _lose(self, error: LostRankError) -> None:
        super()._lose(self._explain(error))
        self.is_stopped = False

    def _explain(self, error: LostRankError) -> LostRankError:
        """Return an error with the reason that arrives over another connection, if it does."""
        known = self._watch.describe_first_trouble(TROUBLE_SECONDS)
        return LostRankError(known) if known else error

    def pop_errors(self) -> list[str]:
        return self._watch.pop_errors()

    # ------------------------------------------------------------------ instructions

    def _instruct(self, instruction: Instruction) -> None:
        """Instruct the others, which have stopped.

        Raises:
            EditRefusedError: they have not.
        """
        self._last_instruction = time.monotonic()
        self._reached.send_bytes(encode_instruction(instruction))

    @property
    def _reached(self) -> SideProcessGroup:
        if not self.is_stopped:
            raise EditRefusedError(self.refusal or "the other ranks have not stopped")
        return super()._reached

    def set_value(self, command: SettingCommand, restore: Callable[[], object]) -> None:
        try:
            self._instruct(ApplySetting(command))
            self._reached.check_agreement(0)
        except (EditFailedError, EditRefusedError):
            restore()
            raise

    def save(self, name: str, save: Callable[[], str]) -> str:
        self._instruct(SaveCheckpoint(name))
        failure, path = "", ""
        try:
            path = save()
        except Exception as error:  # the others must learn of it
            log.warning("The checkpoint %s could not be saved", name, exc_info=True)
            failure = f"{type(error).__name__}: {error}"
        self._reached.check_agreement(0, failure)
        return path

    def stop_training(self) -> None:
        self._instruct(StopTraining())

    def note_replaced_layers(self) -> None:
        self._has_replaced = True

    # ------------------------------------------------------------------ peers

    def announce(self, plan: EditPlan) -> None:
        """Let the others perform this plan."""
        self._instruct(PerformPlan(plan, self._has_replaced))
        self._has_replaced = False

    def check_agreement(self, value: int, failure: str = "") -> None:
        try:
            super().check_agreement(value, failure)
        except LostRankError as error:
            raise self._explain(error) from error
