"""What a trial of edits needs to know of the training loop, and why some loops allow none."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import nn
from torch.optim import LBFGS, Optimizer

from revacnn_lightning.runtime.loss_replay import why_not_recordable
from revacnn_lightning.steering import Editor

__all__ = ["NO_LOOP", "RepeatableLoop", "optimizer_refusal"]

NO_LOOP = (
    "a trial repeats the steps of the training, and only those of a Lightning Trainer are known; "
    "apply the edit, and undo it if it does not help"
)


class RepeatableLoop(Protocol):
    """A training loop whose steps can be repeated.

    A step is: ``optimizer.step(closure)``, where the closure runs the forward in `context`, sets
    the gradients to zero, runs the backward, and clips the gradients.
    """

    @property
    def optimizers(self) -> Sequence[Optimizer]: ...

    def refusal(self) -> str:
        """Return why the steps of this loop cannot be repeated; "" if they can."""

    def context(self) -> AbstractContextManager[None]:
        """Return the context of a forward."""

    def clip_gradients(self, optimizer: Optimizer) -> None:
        """Clip the gradients as the training does."""


def optimizer_refusal(model: nn.Module, editor: Editor) -> str:
    """Return why the steps of the optimizers cannot be repeated; "" if they can.

    Call it while the editor has no hooks.
    """
    if why_not_recordable(model):
        return "part of the network is compiled, and compiled steps cannot be repeated"
    optimizers = editor.all_optimizers
    if len(optimizers) != 1:
        return f"the training has {len(optimizers)} optimizers; a trial needs exactly one"
    (optimizer,) = optimizers
    kind = type(optimizer).__name__
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    is_required = closure is not None and closure.default is inspect.Parameter.empty
    if isinstance(optimizer, LBFGS) or is_required:
        return f"{kind} runs several forwards in a step"
    if any(_hooks_of(optimizer)):
        return f"hooks are registered on the {kind}, which would see the steps of the trial"
    if editor.has_copies:
        return "the training keeps a copy of the network, such as an average of its weights"
    return ""


def _hooks_of(optimizer: Any) -> list[Any]:
    """Return the tables of the hooks of an optimizer; empty ones in a release without them."""
    before = getattr(optimizer, "_optimizer_step_pre_hooks", {})
    return [before, getattr(optimizer, "_optimizer_step_post_hooks", {})]
