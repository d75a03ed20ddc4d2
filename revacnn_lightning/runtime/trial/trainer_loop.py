"""The steps of a Lightning Trainer, as a trial of edits repeats them. Imports no Lightning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import nn
from torch.optim import Optimizer

from revacnn_lightning.runtime.user_hooks import overrides
from revacnn_lightning.steering.holders.optimizers import unwrapped_optimizers

__all__ = ["RepeatableTrainerLoop"]

# Hooks between the forward and the step of the optimizer, which may change gradients.
MODULE_HOOKS = (
    "optimizer_step", "optimizer_zero_grad", "configure_gradient_clipping", "clip_gradients",
    "backward",
    "on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step",
)  # fmt: skip
CALLBACK_HOOKS = (
    "on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step",
)  # fmt: skip


class RepeatableTrainerLoop:
    """The `RepeatableLoop` of a Trainer with automatic optimization.

    Args:
        trainer: the Trainer.
        module: the module that it trains.
        make_context: makes the context of a forward in a training step.
    """

    def __init__(self, trainer: Any, module: nn.Module, make_context: Callable[[], Any]) -> None:
        self._trainer = trainer
        self._module = module
        self.context: Callable[[], AbstractContextManager[None]] = make_context

    @property
    def optimizers(self) -> Sequence[Optimizer]:
        return unwrapped_optimizers(self._trainer.optimizers)

    def refusal(self) -> str:
        trainer, module = self._trainer, self._module
        precision = trainer.precision_plugin
        if trainer.world_size > 1:
            return f"the training runs in {trainer.world_size} processes"
        if not getattr(module, "automatic_optimization", False):
            return "with manual optimization, training_step steps the optimizers itself"
        accumulates = any(
            type(each).__name__ == "GradientAccumulationScheduler" for each in trainer.callbacks
        )
        if trainer.accumulate_grad_batches != 1 or accumulates:
            return "the gradients of several batches are accumulated before a step"
        if getattr(precision, "scaler", None) is not None:
            return "the gradient scaler of 16-mixed precision may skip steps; use bf16-mixed"
        if trainer.strategy.model is not module:
            return f"{type(trainer.strategy).__name__} runs the network inside a wrapper"
        return self._overridden()

    def _overridden(self) -> str:
        """Return which hook of the user may change gradients or steps; "" if none can."""
        for name in MODULE_HOOKS:
            if overrides(self._module, name):
                return f"{type(self._module).__name__} overrides {name}"
        for callback in self._trainer.callbacks:
            for name in CALLBACK_HOOKS:
                if overrides(callback, name):
                    return f"the callback {type(callback).__name__} overrides {name}"
        return ""

    def clip_gradients(self, optimizer: Optimizer) -> None:
        module: Any = self._module
        module.clip_gradients(
            optimizer,
            gradient_clip_val=self._trainer.gradient_clip_val,
            gradient_clip_algorithm=self._trainer.gradient_clip_algorithm,
        )
