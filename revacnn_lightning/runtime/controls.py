"""Execute the commands that concern the run: pause it, save it, end it, set a value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch.optim import Optimizer

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.messages import PlanSummary
from revacnn_lightning.protocol.requests import (
    ControlRun,
    SetGradientClipping,
    SetHyperparameter,
    SettingCommand,
)
from revacnn_lightning.runtime.batch import Progress
from revacnn_lightning.runtime.gradient_clipping import (
    ClippingControl,
    check_gradient_clipping,
    describe_clipping_request,
    set_gradient_clipping,
)
from revacnn_lightning.runtime.hyperparameters import set_hyperparameter_revertibly
from revacnn_lightning.runtime.override_detector import OverrideDetector
from revacnn_lightning.runtime.pause import Pause
from revacnn_lightning.runtime.ranks.all_ranks import AllRanks, SingleRank

__all__ = ["ControllableTraining", "RunController", "set_revertibly"]


class ControllableTraining(Protocol):
    """What a training loop must offer so that viewers can control it."""

    @property
    def optimizers(self) -> Sequence[Optimizer]: ...

    @property
    def schedulers(self) -> Sequence[Any]: ...

    @property
    def clipping(self) -> ClippingControl: ...

    def save_checkpoint(self, name: str) -> str:
        """Save a checkpoint and return its path."""

    def stop(self) -> None:
        """End training after the current batch."""


def set_revertibly(
    command: SettingCommand, controls: ControllableTraining
) -> tuple[str, Callable[[], object]]:
    """Set a value of a training; return what was done, in words, and what sets the one before.

    Raises:
        EditRefusedError: the value cannot be set; nothing has changed.
    """
    if isinstance(command, SetGradientClipping):
        return set_gradient_clipping(command, controls.clipping)
    return set_hyperparameter_revertibly(command, controls.optimizers, controls.schedulers)


class RunController:
    """Executes commands between two batches.

    Args:
        run: id of the run, part of the names of checkpoints.
        controls: the training loop.
        ranks: all ranks of the training, which do the same.

    Attributes:
        overrides: detects that training overrides a hyperparameter that was set.
    """

    def __init__(
        self, run: str, controls: ControllableTraining, ranks: AllRanks | None = None
    ) -> None:
        self.overrides = OverrideDetector(lambda: controls.optimizers, lambda: controls.schedulers)
        self._run = run
        self._controls = controls
        self._ranks: AllRanks = SingleRank() if ranks is None else ranks
        self._pause = Pause()

    def must_wait(self, epoch: int = 0) -> bool:
        """Return whether the next batch must wait; see `Pause.must_wait`."""
        return self._pause.must_wait(epoch)

    @property
    def is_pausing(self) -> bool:
        """Whether the run pauses before one of the next batches."""
        return self._pause.is_active

    def describe_pause(self) -> str:
        """Return when a run that is training pauses, in words; see `Pause.describe`."""
        return self._pause.describe()

    def detect_overrides(self, step: int, *, first_of_epoch: bool) -> bool:
        """Return whether the training has overridden a value that was set, before batch ``step``.

        The parameter groups, or the gradient clipping, have a note then.
        """
        is_clipping_overridden = self._controls.clipping.detect_override(step)
        return self.overrides.detect(step, first_of_epoch=first_of_epoch) or is_clipping_overridden

    def plan(self, command: SetGradientClipping) -> PlanSummary:
        """Return what a command would do.

        Raises:
            EditRefusedError: it would be refused.
        """
        check_gradient_clipping(command, self._controls.clipping)
        present = f"at present: {self._controls.clipping.describe().describe()}"
        return PlanSummary(describe_clipping_request(command), notes=[present])

    def execute(self, command: ControlRun | SettingCommand, progress: Progress) -> str:
        """Execute a command before the batch at ``progress``; return what was done, in words.

        Raises:
            EditRefusedError: there is no such hyperparameter, its value is out of range, a schedule
                of the learning rate cannot be scaled, or the gradients cannot be clipped in this
                way; or another process has ended.
        """
        controls = self._controls
        if not isinstance(command, ControlRun):
            result, restore = set_revertibly(command, controls)
            self._ranks.set_value(command, restore)
            if isinstance(command, SetHyperparameter):
                self.overrides.expect(command)
            return result
        if command.action == "send_state":
            return ""  # sent on receipt
        if self._ranks.refusal:
            raise EditRefusedError(self._ranks.refusal)
        if command.action not in ("checkpoint", "stop"):
            return self._pause.apply(command, progress.epoch)
        name = f"{self._run}-step={progress.step}"
        path = self._ranks.save(name, lambda: controls.save_checkpoint(name))
        if command.action == "checkpoint":
            return f"Saved {path}"
        self._ranks.stop_training()
        controls.stop()
        self._pause.apply(ControlRun("resume"))
        return f"Stopping; saved {path}"
