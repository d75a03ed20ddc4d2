"""`StepHooks`: something to do before and after each step of the optimizers of some parameters."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any
from weakref import WeakSet

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from revacnn_lightning.steering.execution import optimizer_state

__all__ = ["StepHooks", "is_listed"]


def is_listed(parameter: Tensor, optimizer: Optimizer) -> bool:
    """Return whether an optimizer trains a parameter."""
    return any(True for _ in optimizer_state.param_groups_of([optimizer], parameter))


class StepHooks(ABC):
    """Hooks of the optimizers that train some parameters. Without parameters, there are none.

    They are hooks of each optimizer, which run before the global hooks that measure a step.
    """

    def __init__(self) -> None:
        self._handles: list[Any] = []
        self._hooked: WeakSet[Optimizer] = WeakSet()

    @abstractmethod
    def _hooked_parameters(self) -> Iterable[Tensor]:
        """Return the parameters whose optimizers are hooked."""

    @abstractmethod
    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None: ...

    @abstractmethod
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None: ...

    def release(self) -> None:
        """Remove every hook."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._hooked.clear()

    def _hook(self, optimizers: Iterable[Optimizer]) -> None:
        """Hook these optimizers, and any other right before its first step.

        Training may replace its optimizers.
        """
        if any(True for _ in self._hooked_parameters()):
            for optimizer in optimizers:
                self._hook_optimizer(optimizer)
            self._handles.append(_call_before_each_step(self))

    def _hook_optimizer(self, optimizer: Optimizer) -> None:
        if optimizer not in self._hooked and any(
            is_listed(parameter, optimizer) for parameter in self._hooked_parameters()
        ):
            self._hooked.add(optimizer)
            self._handles.append(optimizer.register_step_pre_hook(self._before_step))
            self._handles.append(optimizer.register_step_post_hook(self._after_step))


def _call_before_each_step(hooks: StepHooks) -> RemovableHandle:
    """Let the hooks find every optimizer that steps, as long as they exist."""
    reference = weakref.ref(hooks)

    def hook(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        existing = reference()
        if existing is not None:
            existing._hook_optimizer(optimizer)

    handle = register_optimizer_step_pre_hook(hook)
    weakref.finalize(hooks, handle.remove)
    return handle
