"""What a run does by itself before a batch: it prunes to a budget, and acts on its verdicts."""

from __future__ import annotations

import logging
from collections.abc import Callable

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.automatic_requests import (
    AutomaticCommand,
    ControlPruning,
    PruneTo,
)
from revacnn_lightning.protocol.automatic_state import AutomaticState
from revacnn_lightning.runtime.batch import TrainingBatch
from revacnn_lightning.runtime.pruning import Pruning
from revacnn_lightning.runtime.steering_policy import SteeringPolicyExecutor

__all__ = ["AutomaticSteering"]

log = logging.getLogger(__name__)


class AutomaticSteering:
    """Edits the network by itself: prunes it to a budget, and applies the policy on verdicts.

    It executes the commands `PruneTo`, `ControlPruning` and `SetPolicy`.

    Every edit goes through the queue of requests, so that it is planned, verified, journaled and
    agreed on by all processes like any other.

    Args:
        pruning: removes filters to reach a budget.
        policy: acts on the verdicts.
        on_change: called when `state` has changed.
    """

    def __init__(
        self, pruning: Pruning, policy: SteeringPolicyExecutor, on_change: Callable[[], None]
    ) -> None:
        self._pruning = pruning
        self._policy = policy
        self._on_change = on_change
        self._published = AutomaticState()

    @property
    def state(self) -> AutomaticState:
        """The state of the automatic steering, as it is published."""
        return AutomaticState(self._policy.policy, self._policy.proposals, self._pruning.state)

    @property
    def is_active(self) -> bool:
        """Whether edits must be planned though no client requests any."""
        return self._pruning.is_running or self._policy.policy != "off"

    def needs_statistics(self, step: int) -> bool:
        """Return whether what was recorded so far is needed before this batch."""
        return self._pruning.is_due(step)

    def execute(self, command: AutomaticCommand, batch: TrainingBatch) -> str:
        """Execute a command before a batch; return what was done, in words.

        Raises:
            EditRefusedError: this training cannot be edited, or the command makes no sense now.
        """
        if isinstance(command, PruneTo):
            if batch.edit_refusal:
                raise EditRefusedError(batch.edit_refusal)
            result = self._pruning.start(command, batch.step)
        elif isinstance(command, ControlPruning):
            result = self._pruning.control(command)
        else:
            if command.policy == "apply_free" and batch.edit_refusal:
                raise EditRefusedError(batch.edit_refusal)
            result = self._policy.set_policy(command.policy)
        self._publish()
        return result

    def advance(self, batch: TrainingBatch, version: int) -> None:
        """Do what is due before a batch, unless the network cannot be edited before this one.

        Args:
            batch: the next one.
            version: structure version of the messages.
        """
        if not (self.is_active or self._pruning.has_pending) or not batch.can_edit:
            return
        if batch.edit_refusal or not batch.is_probe_ready():
            return
        try:
            self._pruning.advance(batch, version)
            self._policy.advance(batch.step)
        except Exception as error:  # a bug of this package must not stop the training
            log.warning("The run changes nothing by itself any more", exc_info=True)
            self._pruning.stop(f"internal error ({type(error).__name__}: {error})")
            self._policy.set_policy("off")
        self._publish()

    def _publish(self) -> None:
        if self.state != self._published:
            self._published = self.state
            self._on_change()
