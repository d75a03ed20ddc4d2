"""Scales the steps of optimizers on the parameters of some layers, as a learning rate does.

A parameter group of its own would change the optimizer, its checkpoints and what schedulers count.
Therefore a hook before each step copies the parameters, and a hook after it keeps only ``factor``
times their change. The optimizer keeps its state.

Most optimizers multiply their whole step by the learning rate, with decoupled weight decay and with
momentum: SGD, Adam, AdamW, NAdam, RAdam, Adamax, Adagrad, Adadelta, RMSprop. For these, the
parameters become those of a group with ``factor`` times the rate, up to rounding. For ASGD,
Adafactor, LBFGS and Rprop, the rate means something else (see `planning.learning_rate`): each of
their steps is scaled.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from revacnn_lightning.steering.execution.step_hooks import StepHooks, is_listed
from revacnn_lightning.steering.filter_ids import FilterIds
from revacnn_lightning.telemetry.inspection.user_modes import torch_modes_suspended
from revacnn_lightning.telemetry.module_tree import list_named_modules
from revacnn_lightning.telemetry.split_tensors import ShardedParameterLookup, local_part
from revacnn_lightning.telemetry.unit_layers import UnitLayer, own_parameters

__all__ = ["LayerLearningRateScaler"]

log = logging.getLogger(__name__)


def _without_interrupting(hook: Callable[..., None]) -> Callable[..., None]:
    """Decorate a hook of `LayerLearningRateScaler` so that its errors do not stop the training.

    No mode sees its operations: they are none of the user's.
    """

    @functools.wraps(hook)
    def guarded(
        self: LayerLearningRateScaler, optimizer: Optimizer, args: Any, kwargs: Any
    ) -> None:
        try:
            with torch_modes_suspended(), torch.no_grad():
                hook(self, optimizer, args, kwargs)
        except Exception as error:  # the layer trains at its full rate, but training continues
            message = "The learning rates of layers are no longer scaled: %s"
            log.warning(message, error, exc_info=True)
            self.disable_until_refresh()

    return guarded


class LayerLearningRateScaler(StepHooks):
    """Scales the learning rates of the layers in ``filters.rates``.

    Call `refresh` after every change of the structure or of the rates.
    """

    def __init__(self, model: nn.Module, filters: FilterIds) -> None:
        super().__init__()
        self._model = model
        self._filters = filters
        self._stored = ShardedParameterLookup(model)
        self._scaled: dict[int, tuple[Tensor, float]] = {}
        self._saved: dict[int, dict[int, Tensor]] = {}  # of optimizers that step now

    def refresh(self, optimizers: Sequence[Optimizer] = ()) -> None:
        """Find the parameters, and hook these optimizers and others that train them."""
        self.release()
        if self._filters.rates:
            modules = dict(list_named_modules(self._model))
            for layer, factor in self._filters.rates.items():
                for parameter in self._parameters_of(layer, modules):
                    stored = self._stored.sharded(parameter)
                    self._scaled[id(stored)] = stored, factor
        self._hook(optimizers)

    def release(self) -> None:
        super().release()
        self.disable_until_refresh()

    def disable_until_refresh(self) -> None:
        """Scale nothing until the next `refresh`."""
        self._scaled.clear()
        self._saved.clear()

    def _parameters_of(self, layer: str, modules: Mapping[str, nn.Module]) -> Iterator[Tensor]:
        """Yield the parameters of a layer, if it is in the network, and of its batch norms."""
        conv = modules.get(layer)
        if not isinstance(conv, UnitLayer):
            return
        yield from own_parameters(conv)
        for name in self._filters.norms.get(layer, []):
            norm = modules.get(name)
            if isinstance(norm, _NormBase):
                yield from norm.parameters(recurse=False)

    def _hooked_parameters(self) -> Iterable[Tensor]:
        return (parameter for parameter, _ in self._scaled.values())

    @_without_interrupting
    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._saved[id(optimizer)] = {
            key: local_part(parameter).clone()
            for key, (parameter, _) in self._scaled.items()
            if is_listed(parameter, optimizer)
        }

    @_without_interrupting
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for key, before in self._saved.pop(id(optimizer), {}).items():
            parameter, factor = self._scaled[key]
            _scale_change(local_part(parameter), before, factor)
            # An optimizer that wraps this one, such as Lookahead, must not scale the step again.
            for outer in self._saved.values():
                outer.pop(key, None)


def _scale_change(now: Tensor, before: Tensor, factor: float) -> None:
    """Move a tensor to ``before + factor * (now - before)``, rounded once."""
    precise = torch.promote_types(now.dtype, torch.float32)
    change = now.to(precise) - before
    now.copy_(change.mul_(factor).add_(before))
