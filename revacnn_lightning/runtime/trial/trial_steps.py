"""Records training steps whole, so that a trial can train them again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from revacnn_lightning.runtime.loss_replay import drop_calls_not_leading_to_loss, why_not_replayable
from revacnn_lightning.runtime.recorded_step import RecordedStep
from revacnn_lightning.runtime.step_recorder import StepRecorder
from revacnn_lightning.runtime.step_recording import AddResult, recording_step
from revacnn_lightning.runtime.trial.random_state import RandomState
from revacnn_lightning.runtime.trial.training_values import RATES

__all__ = ["TrialStep", "first_differing_step", "recording_trial_step"]


@dataclass(frozen=True)
class TrialStep:
    """A recorded training step that can be repeated.

    Attributes:
        step: the calls of the step on the whole batch, as far as they lead to the loss.
        loss: the loss of the batch.
        random: the random states at the start of the step.
        rates: the rates of each parameter group at the end of the step.
    """

    step: RecordedStep
    loss: Tensor
    random: RandomState
    rates: list[dict[str, Any]]

    @property
    def nbytes(self) -> int:
        """How much memory the kept tensors take."""
        return sum(value.nbytes for value in self.step.constants.values())


class _WholeStepRecorder(StepRecorder):
    """Keeps whole batches, but nothing that the network computes from them.

    Attributes:
        random: the random states when it was made.
        loss: what the step has returned as the loss; None if it has returned none.
    """

    max_elements = 1 << 40

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, 0, 0)
        self.random = RandomState.current(model.parameters())
        self.loss: Tensor | None = None

    def add_result(self, output: Any) -> None:
        super().add_result(output)
        loss = output.get("loss") if isinstance(output, Mapping) else output
        self.loss = loss.detach().clone() if isinstance(loss, Tensor) else None

    def _value(self, tensor: Tensor, *, is_needed: bool) -> Tensor:
        return super()._value(tensor, is_needed=False)


def recording_trial_step(
    model: nn.Module, optimizer: Optimizer, finish: Callable[[TrialStep | str], None]
) -> AbstractContextManager[AddResult]:
    """Return a context that records the training step that runs inside; see `recording_step`.

    Args:
        model: the model whose step runs.
        optimizer: the optimizer that trains the model.
        finish: receives the step, or why it cannot be trained again.
    """
    recorders: list[_WholeStepRecorder] = []

    def make_recorder() -> StepRecorder:
        recorders.append(_WholeStepRecorder(model))
        return recorders[0]

    def end(step: RecordedStep | None, failure: str) -> None:
        if step is None or failure:
            finish(failure)
            return
        (recorder,) = recorders
        note = drop_calls_not_leading_to_loss(step) or why_not_replayable(step)
        if note or recorder.loss is None:
            finish(note or "training_step returned no loss")
            return
        for call in step.calls:
            call.values = []
        rates = [
            {key: _plain(group[key]) for key in RATES if key in group}
            for group in optimizer.param_groups
        ]
        finish(TrialStep(step, recorder.loss, recorder.random, rates))

    return recording_step(make_recorder, end)


def _plain(value: Any) -> Any:
    """Return a rate that later steps do not change."""
    return value.detach().clone() if isinstance(value, Tensor) else value


def first_differing_step(recorded: Sequence[TrialStep], losses: Sequence[Tensor]) -> int:
    """Return the first step with another loss than the recorded one, or that is no number; -1."""
    for i, (one, loss) in enumerate(zip(recorded, losses, strict=True)):
        if not torch.equal(one.loss.reshape(()), loss) or not math.isfinite(float(loss)):
            return i
    return -1
