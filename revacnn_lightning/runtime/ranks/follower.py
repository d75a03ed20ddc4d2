"""What all processes but the first do: they follow its orders before the same batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from torch import Tensor

from revacnn_lightning.errors import EditFailedError
from revacnn_lightning.runtime.batch import TrainingBatch
from revacnn_lightning.runtime.controls import TrainingControls
from revacnn_lightning.runtime.hyperparameters import set_revertibly
from revacnn_lightning.runtime.ranks.agreement import Agreement, Signal
from revacnn_lightning.runtime.ranks.orders import (
    Order,
    Perform,
    Proceed,
    Save,
    SetValue,
    StopTraining,
    decode_order,
)
from revacnn_lightning.runtime.ranks.side_group import LostRankError, SideGroup
from revacnn_lightning.steering import Editor, EditPlan

__all__ = ["Follower"]

log = logging.getLogger(__name__)


class Follower:
    """Follows the `Leader` in one of the other processes. It is the editor's `Peers`.

    Args:
        group: of all processes.
        editor: of the replica of this process.
        controls: of the training in this process.
    """

    def __init__(self, group: SideGroup, editor: Editor, controls: TrainingControls) -> None:
        self._group = group
        self._editor = editor
        self._controls = controls
        self._agreement: Agreement | None = Agreement(group)
        self._is_preparing = False
        editor.peers = self

    @property
    def needs_probe(self) -> bool:
        """Whether the leader wants to know how training uses the network."""
        return self._is_preparing

    def begin_batch(self, make_batch: Callable[[], TrainingBatch]) -> None:
        """Do what the leader wants before this batch. The batch is described only if necessary."""
        if self._agreement is None:
            return
        try:
            signal = self._agreement.arrive()
            if signal is None:
                return
            self._is_preparing |= signal in (Signal.PREPARE, Signal.STOP)
            if signal == Signal.STOP:
                self._follow_orders(make_batch())
            if self._agreement is not None:
                self._agreement.start(Signal.NOTHING)
        except LostRankError:
            self._agreement = None
            log.warning(
                "Another process of this training has ended or does not reply; this one can no "
                "longer be changed",
                exc_info=True,
            )

    def close(self, *, is_clean: bool) -> None:
        """Leave the group; after an error, without waiting for the others."""
        try:
            if self._agreement is not None and is_clean:
                self._agreement.finish()
        except LostRankError:
            log.info("The last exchange with the first process failed", exc_info=True)
        self._agreement = None
        self._group.close()
        self._editor.close()

    # ------------------------------------------------------------------ orders

    def _follow_orders(self, batch: TrainingBatch) -> None:
        while True:
            order = decode_order(self._group.receive_bytes())
            if isinstance(order, Proceed):
                if order.is_last:
                    self._agreement = None
                elif order.is_urgent and self._agreement is not None:
                    self._agreement.hurry()
                return
            self._follow(order, batch)

    def _follow(self, order: Order, batch: TrainingBatch) -> None:
        try:
            if isinstance(order, Perform):
                if order.adopts_replaced:
                    self._editor.adopt_replaced_layers()
                self._editor.perform_planned(order.plan, batch.make_probe)
            elif isinstance(order, SetValue):
                self._set_value(order)
            elif isinstance(order, Save):
                self._save(order)
            elif isinstance(order, StopTraining):
                self._controls.stop()
        except LostRankError:
            raise
        except EditFailedError as error:  # the leader replies to the request
            log.info("%s was not carried out: %s", type(order).__name__, error)

    def _set_value(self, order: SetValue) -> None:
        controls, restore, failure = self._controls, None, ""
        try:
            _, restore = set_revertibly(order.command, controls.optimizers, controls.schedulers)
        except Exception as error:  # the leader must learn of it
            log.warning("%s was not carried out", order.command, exc_info=True)
            failure = f"{type(error).__name__}: {error}"
        try:
            self._group.agree(0, failure)
        except EditFailedError:
            if restore is not None:
                restore()
            raise

    def _save(self, order: Save) -> None:
        failure = ""
        try:
            self._controls.save_checkpoint(order.name)
        except Exception as error:  # the leader must learn of it
            log.warning("The checkpoint %s could not be saved", order.name, exc_info=True)
            failure = f"{type(error).__name__}: {error}"
        self._group.agree(0, failure)

    # ------------------------------------------------------------------ peers

    def announce(self, plan: EditPlan) -> None:
        """Only the leader announces plans.

        Raises:
            EditFailedError: always.
        """
        raise EditFailedError("only the first process of a training plans edits")

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Give these tensors the values of the leader's."""
        self._group.share(tensors)

    def agree(self, value: int, failure: str = "") -> None:
        """Check that no process has failed and that all have the same value."""
        self._group.agree(value, failure)
