"""The processes of one training, as its first process uses them: `Leader`, or `Alone`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from revacnn_lightning.errors import EditFailedError, EditRefusedError
from revacnn_lightning.protocol.requests import Command, ControlRun, RequestBody, SetHyperparameter
from revacnn_lightning.runtime.ranks.agreement import Agreement, Signal
from revacnn_lightning.runtime.ranks.orders import (
    Order,
    Perform,
    Proceed,
    Save,
    SetValue,
    StopTraining,
    Wait,
    encode_order,
)
from revacnn_lightning.runtime.ranks.side_group import LostRankError, SideGroup
from revacnn_lightning.steering import EditPlan

__all__ = ["Alone", "Leader", "StopNeeds", "Team", "needs_all"]

log = logging.getLogger(__name__)

# While the run is paused, the others get a sign of life this often, much more often than their
# collectives time out.
WAIT_SECONDS = 1.0


@dataclass(frozen=True)
class StopNeeds:
    """Why all processes have to stop before one of the next batches.

    Attributes:
        is_wanted: a request waits for it.
        is_edit: it is an edit, which forwards in all processes verify.
        is_pausing: the run pauses.
    """

    is_wanted: bool = False
    is_edit: bool = False
    is_pausing: bool = False


class Team(Protocol):
    """All processes of a training. Each batch is `begin_batch` ... `end_stop`.

    Attributes:
        size: the number of processes.
        is_stopped: whether all of them have stopped before this batch, to be changed together.
        refusal: why they cannot be changed together; "" if they can.
    """

    size: int
    is_stopped: bool
    refusal: str

    def wait(self) -> None:
        """Keep the other processes waiting: the run is paused."""

    def set_value(self, command: SetHyperparameter, restore: Callable[[], object]) -> None:
        """Let the others set a hyperparameter, too; ``restore`` undoes it here if one fails.

        Raises:
            EditFailedError: it failed in one process.
        """

    def save(self, name: str, save: Callable[[], str]) -> str:
        """Save a checkpoint in all processes together; return the result of ``save``."""

    def stop_training(self) -> None:
        """Let the others end the training after this batch."""

    def note_replaced_layers(self) -> None:
        """Let the others adopt, before the next edit, the layers that the model has replaced."""


def needs_all(body: RequestBody, *, dry_run: bool) -> bool:
    """Return whether a request changes all processes, so that they have to stop before a batch."""
    if isinstance(body, ControlRun):
        return body.action != "send_state"
    if isinstance(body, SetHyperparameter):
        return True
    return not isinstance(body, Command) and not dry_run


class Alone:
    """The team of a training in one process, which stops before every batch."""

    size = 1
    is_stopped = True
    refusal = ""

    def wait(self) -> None:
        """Nobody else waits."""

    def set_value(self, command: SetHyperparameter, restore: Callable[[], object]) -> None:
        """Nobody else has it."""

    def save(self, name: str, save: Callable[[], str]) -> str:
        return save()

    def stop_training(self) -> None:
        """Nobody else trains."""

    def note_replaced_layers(self) -> None:
        """Nobody else has any."""


class Leader:
    """The team of the process that serves viewers and plans edits. It is the editor's `Peers`.

    Args:
        size: the number of processes.
        group: of all processes; None: they cannot reach each other.
        refusal: why that is so.
    """

    def __init__(self, size: int, group: SideGroup | None, refusal: str = "") -> None:
        self.size = size
        self._group = group
        self._agreement = None if group is None else Agreement(group)
        self.is_stopped = False
        self._has_arrived = False  # whether an exchange is to be started
        self._are_prepared = False  # to verify an edit by forwards
        self._has_replaced = False  # whether the others have to adopt replaced layers
        self._last_order = 0.0  # monotonic seconds
        self.refusal = refusal

    # ------------------------------------------------------------------ a batch

    def begin_batch(self) -> None:
        """Stop with the others, if that is agreed. Call it once before every batch."""
        self.is_stopped = self._has_arrived = False
        if self._agreement is not None:
            try:
                signal = self._agreement.arrive()
            except LostRankError as error:
                self._lose(error)
                return
            self._has_arrived = signal is not None
            self.is_stopped = signal == Signal.STOP
            self._are_prepared |= signal == Signal.PREPARE

    def wait(self) -> None:
        try:
            if self.is_stopped and time.monotonic() >= self._last_order + WAIT_SECONDS:
                self._order(Wait())
        except LostRankError as error:
            self._lose(error)

    def end_stop(self, needs: StopNeeds | None) -> None:
        """Let all processes train the batch. Call it once before every batch, whatever happens.

        Args:
            needs: why to stop again; None: never, because no requests are served any more.
        """
        try:
            if needs is None:
                self._retire()
            else:
                self._agree_on_next(needs)
        except LostRankError as error:
            self._lose(error)

    def _agree_on_next(self, needs: StopNeeds) -> None:
        agreement = self._agreement
        if self.is_stopped:
            self._order(Proceed(is_urgent=needs.is_pausing))
            self.is_stopped = False
            if needs.is_pausing and agreement is not None:
                agreement.hurry()
        if self._has_arrived and agreement is not None:
            signal = Signal.STOP if needs.is_wanted or needs.is_pausing else Signal.NOTHING
            if needs.is_edit and not self._are_prepared:
                signal = Signal.PREPARE
            agreement.start(signal, is_urgent=signal != Signal.NOTHING)

    def _retire(self) -> None:
        if self.is_stopped:
            self._order(Proceed(is_last=True))
            self._agreement, self.is_stopped = None, False
        elif self._has_arrived and self._agreement is not None:
            self._agreement.start(Signal.STOP, is_urgent=True)

    def close(self, *, is_clean: bool) -> None:
        """Leave the group; after an error, without waiting for the others."""
        try:
            if self._agreement is not None and is_clean:
                self._agreement.finish()
        except LostRankError:
            log.info("The last exchange with the other processes failed", exc_info=True)
        self._agreement = None
        if self._group is not None:
            self._group.close()

    def _lose(self, error: Exception) -> None:
        self._agreement, self.is_stopped = None, False
        if not self.refusal:
            self.refusal = (
                f"another process of this training has ended or does not reply ({error}); its "
                "processes can no longer be changed together"
            )
            log.warning("%s", self.refusal)

    # ------------------------------------------------------------------ orders

    def _order(self, order: Order) -> None:
        """Order the others, which have stopped.

        Raises:
            EditRefusedError: they have not.
        """
        self._last_order = time.monotonic()
        self._reached.send_bytes(encode_order(order))

    @property
    def _reached(self) -> SideGroup:
        """The group, whose other processes have stopped."""
        if not self.is_stopped or self._group is None:
            raise EditRefusedError(self.refusal or "the other processes have not stopped")
        return self._group

    def set_value(self, command: SetHyperparameter, restore: Callable[[], object]) -> None:
        try:
            self._order(SetValue(command))
            self._reached.agree(0)
        except (EditFailedError, EditRefusedError):
            restore()
            raise

    def save(self, name: str, save: Callable[[], str]) -> str:
        self._order(Save(name))
        failure, path = "", ""
        try:
            path = save()
        except Exception as error:  # the others must learn of it
            log.warning("The checkpoint %s could not be saved", name, exc_info=True)
            failure = f"{type(error).__name__}: {error}"
        self._reached.agree(0, failure)
        return path

    def stop_training(self) -> None:
        self._order(StopTraining())

    def note_replaced_layers(self) -> None:
        self._has_replaced = True

    # ------------------------------------------------------------------ peers

    def announce(self, plan: EditPlan) -> None:
        """Let the others perform this plan."""
        self._order(Perform(plan, self._has_replaced))
        self._has_replaced = False

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Send the values of these tensors to the others."""
        self._reached.share(tensors)

    def agree(self, value: int, failure: str = "") -> None:
        """Check that no process has failed and that all have the same value."""
        self._reached.agree(value, failure)
