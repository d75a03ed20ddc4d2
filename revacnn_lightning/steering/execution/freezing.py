"""Frozen filters truly stay as they are: no gradient, decay, momentum or statistic moves them.

Setting gradients to zero is not enough: weight decay and momentum move a weight without one. So
each step of an optimizer is bracketed by its own hooks, which put the frozen entries of weights
and of optimizer state back; and each batch norm puts its frozen running statistics back after
every forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from revacnn_lightning.steering.execution import optimizer_state as states
from revacnn_lightning.steering.filter_ids import FilterIds
from revacnn_lightning.telemetry.inspection.side_effects import is_side_effect_free

__all__ = ["Freezer", "StatisticsKeeper"]


@dataclass
class TensorSlice:
    """Some entries of one tensor along one dimension."""

    tensor: Tensor
    dim: int
    at: Tensor  # int64, on the tensor's device

    def of(self, tensor: Tensor) -> Tensor:
        return tensor.detach().index_select(self.dim, self.at)

    def put(self, tensor: Tensor, values: Tensor) -> None:
        tensor.detach().index_copy_(self.dim, self.at, values)


class Freezer:
    """Keeps the frozen filters of a model as they are, whichever optimizers step.

    Call ``refresh`` after every change of structure, of what is frozen, or of the optimizers.
    """

    def __init__(self, model: nn.Module, filters: FilterIds) -> None:
        self._model = model
        self._filters = filters
        self._handles: list[Any] = []
        self._parts: list[TensorSlice] = []
        self._saved: dict[int, list[tuple[TensorSlice, Tensor, dict[str, Tensor]]]] = {}

    def refresh(self, optimizers: Sequence[Optimizer]) -> None:
        """Find the frozen entries again and hook what could move them."""
        self.release()
        modules = dict(self._model.named_modules())
        for layer in self._filters.frozen:
            if isinstance(modules.get(layer), nn.modules.conv._ConvNd):
                self._find(modules, layer)
        if self._parts:
            for optimizer in optimizers:
                self._handles.append(optimizer.register_step_pre_hook(self._before_step))
                self._handles.append(optimizer.register_step_post_hook(self._after_step))

    def release(self) -> None:
        """Take every hook away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._parts.clear()
        self._saved.clear()

    def _find(self, modules: dict[str, nn.Module], layer: str) -> None:
        conv, indices = modules[layer], self._filters.frozen_indices(layer)
        if not indices:
            return
        rows = 1 if conv.transposed else 0
        weight: Any = conv.weight
        at = torch.tensor(indices, device=weight.device)
        if conv.transposed and conv.groups != 1:  # only ever frozen as a whole
            at = torch.arange(weight.shape[1], device=weight.device)
        self._parts.append(TensorSlice(weight, rows, at))
        at = torch.tensor(indices, device=weight.device)
        if isinstance(conv.bias, Tensor):
            self._parts.append(TensorSlice(conv.bias, 0, at))
        for name in self._filters.norms.get(layer, []):
            norm = modules.get(name)
            if isinstance(norm, _NormBase):
                self._parts += [TensorSlice(p, 0, at) for p in norm.parameters(recurse=False)]
                if norm.running_mean is not None:
                    self._keep_statistics(norm, at)

    def _keep_statistics(self, norm: nn.Module, at: Tensor) -> None:
        keeper = StatisticsKeeper(at)
        self._handles.append(norm.register_forward_pre_hook(keeper.before))
        self._handles.append(norm.register_forward_hook(keeper.after))

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._saved[id(optimizer)] = [
            (part, part.of(part.tensor).clone(), _state_of(optimizer, part))
            for part in self._parts
            if any(True for _ in states.groups_of([optimizer], part.tensor))
        ]

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        with torch.no_grad():
            for part, values, state in self._saved.pop(id(optimizer), []):
                part.put(part.tensor, values)
                _restore_state(optimizer, part, state)


def _state_of(optimizer: Optimizer, part: TensorSlice) -> dict[str, Tensor]:
    state = optimizer.state.get(part.tensor, {})
    return {k: part.of(v).clone() for k, v in state.items() if _has_shape(v, part)}


def _has_shape(value: Any, part: TensorSlice) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape == part.tensor.shape


def _restore_state(optimizer: Optimizer, part: TensorSlice, saved: dict[str, Tensor]) -> None:
    """Put the entries of the optimizer's state back; those of a new state where they start."""
    _, _, group = next(iter(states.groups_of([optimizer], part.tensor)))
    for key, value in optimizer.state.get(part.tensor, {}).items():
        if _has_shape(value, part):
            then = saved.get(key)
            if then is None:
                start = states.start_value(optimizer, group, key)
                then = part.of(part.tensor if start is None else torch.full_like(value, start))
            part.put(value, then)


class StatisticsKeeper:
    """Forward hooks of a batch norm that keep some of its running statistics where they are."""

    def __init__(self, at: Tensor) -> None:
        self.at = at
        self.kept: list[Tensor] = []

    def before(self, module: nn.Module, args: Any) -> None:
        if module.training and not is_side_effect_free():
            self.kept = [s.index_select(0, self.at) for s in _statistics(module)]

    def after(self, module: nn.Module, args: Any, output: Any) -> None:
        if module.training and not is_side_effect_free():
            for statistic, kept in zip(_statistics(module), self.kept, strict=True):
                # Through .data, unseen by autograd: backward asserts that the statistics were
                # not changed since the forward, although in training mode it never reads them.
                statistic.data.index_copy_(0, self.at, kept)


def _statistics(module: nn.Module) -> list[Tensor]:
    found = [getattr(module, "running_mean", None), getattr(module, "running_var", None)]
    return [statistic for statistic in found if isinstance(statistic, Tensor)]
