"""Keeps frozen filters exactly as they are, whatever gradient, decay, momentum or statistic.

Setting gradients to zero is not enough: weight decay and momentum change a weight without one.
Therefore hooks before and after each optimizer step restore the frozen entries of weights and of
optimizer state, and hooks of each batch norm restore its frozen running statistics after every
forward. If a compiler traces the forward, they are restored after the optimizer step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from revacnn_lightning.steering.computed_tensors import tensor_or_original, tensors_defining_filters
from revacnn_lightning.steering.execution import optimizer_state
from revacnn_lightning.steering.execution.step_hooks import StepHooks, is_listed
from revacnn_lightning.steering.filter_ids import FilterIds
from revacnn_lightning.telemetry.inspection.side_effects import inside_side_effect_free
from revacnn_lightning.telemetry.module_tree import list_named_modules
from revacnn_lightning.telemetry.split_tensors import (
    ShardedParameterLookup,
    is_distributed,
    local_index_range,
    local_part,
)
from revacnn_lightning.telemetry.unit_layers import UnitLayer, group_count, is_transposed

__all__ = ["Freezer"]


@dataclass
class _FrozenSlice:
    """The frozen entries of one tensor along one dimension.

    Of a tensor that is split among the ranks of a training, they are those that this rank has.
    """

    tensor: Tensor
    dim: int
    indices: Sequence[int]
    _positions: dict[tuple[range, torch.device], Tensor] = field(default_factory=dict)

    def positions(self, tensor: Tensor) -> Tensor:
        """Return where the entries are in this rank's part of a tensor of this shape (int64)."""
        own = range(tensor.shape[self.dim])
        if is_distributed(tensor):
            own = local_index_range(tensor, self.dim) or range(0)
        device = local_part(tensor).device
        found = self._positions.get((own, device))
        if found is None:
            at = [own.index(i) for i in self.indices if i in own]
            found = torch.tensor(at, dtype=torch.int64, device=device)
            self._positions[own, device] = found
        return found

    def select(self, tensor: Tensor) -> Tensor:
        """Return the entries of a tensor of the same shape."""
        return local_part(tensor).index_select(self.dim, self.positions(tensor))

    def assign(self, tensor: Tensor, values: Tensor) -> None:
        """Set the entries of a tensor of the same shape."""
        local_part(tensor).index_copy_(self.dim, self.positions(tensor), values)


class Freezer(StepHooks):
    """Keeps the frozen filters of a model as they are, whichever optimizer steps.

    Call `refresh` after every change of the structure or of the frozen filters.
    """

    def __init__(self, model: nn.Module, filters: FilterIds) -> None:
        super().__init__()
        self._model = model
        self._filters = filters
        self._stored = ShardedParameterLookup(model)
        self._slices: list[_FrozenSlice] = []
        self._statistics: list[_FrozenStatistics] = []
        self._saved: dict[int, list[tuple[_FrozenSlice, Tensor, dict[str, Tensor]]]] = {}

    def refresh(self, optimizers: Sequence[Optimizer] = ()) -> None:
        """Find the frozen entries, and hook these optimizers and others that train them."""
        self.release()
        modules = dict(list_named_modules(self._model))
        for layer in self._filters.frozen:
            if isinstance(modules.get(layer), UnitLayer):
                self._add_slices_of(modules, layer)
        self._hook(optimizers)

    def release(self) -> None:
        super().release()
        self._slices.clear()
        self._statistics.clear()
        self._saved.clear()

    def frozen_slices(self, tensor: Tensor) -> list[tuple[int, Tensor]]:
        """Return (dimension, indices) of the frozen slices of a tensor."""
        return [
            (frozen.dim, frozen.positions(tensor))
            for frozen in self._slices
            if frozen.tensor is tensor
        ]

    def _add_slices_of(self, modules: dict[str, nn.Module], layer: str) -> None:
        conv, indices = modules[layer], self._filters.frozen_indices(layer)
        assert isinstance(conv, UnitLayer)
        originals = tensors_defining_filters(conv)
        if not indices or not originals:
            return
        rows = int(is_transposed(conv))
        for weight in originals:
            is_whole = is_transposed(conv) and group_count(conv) != 1  # only frozen as a whole
            self._add_slice(weight, rows, range(weight.shape[1]) if is_whole else indices)
        bias = tensor_or_original(conv, "bias")
        if bias is not None:
            self._add_slice(bias, 0, indices)
        for name in self._filters.norms.get(layer, []):
            norm = modules.get(name)
            if isinstance(norm, _NormBase):
                for parameter in norm.parameters(recurse=False):
                    self._add_slice(parameter, 0, indices)
                if norm.running_mean is not None:
                    self._keep_statistics(
                        norm, torch.tensor(indices, device=norm.running_mean.device)
                    )

    def _add_slice(self, tensor: Tensor, dim: int, indices: Sequence[int]) -> None:
        self._slices.append(_FrozenSlice(self._stored.sharded(tensor), dim, indices))

    def _keep_statistics(self, norm: nn.Module, at: Tensor) -> None:
        statistics = _FrozenStatistics(norm, at)
        self._statistics.append(statistics)
        self._handles.append(norm.register_forward_pre_hook(statistics.save))
        self._handles.append(norm.register_forward_hook(statistics.restore))

    def _hooked_parameters(self) -> Iterable[Tensor]:
        return (frozen.tensor for frozen in self._slices)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._saved[id(optimizer)] = [
            (frozen, frozen.select(frozen.tensor).clone(), _state_of(optimizer, frozen))
            for frozen in self._slices
            if is_listed(frozen.tensor, optimizer)
        ]

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        with torch.no_grad():
            for frozen, values, state in self._saved.pop(id(optimizer), []):
                frozen.assign(frozen.tensor, values)
                _restore_state(optimizer, frozen, state)
            for statistics in self._statistics:
                statistics.restore_after_step()


def _state_of(optimizer: Optimizer, frozen: _FrozenSlice) -> dict[str, Tensor]:
    state = optimizer.state.get(frozen.tensor, {})
    return {k: frozen.select(v).clone() for k, v in state.items() if _has_shape(v, frozen)}


def _has_shape(value: Any, frozen: _FrozenSlice) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape == frozen.tensor.shape


def _restore_state(optimizer: Optimizer, frozen: _FrozenSlice, saved: dict[str, Tensor]) -> None:
    """Restore the entries of the optimizer's state; those of a new state to their start."""
    _, _, group = next(iter(optimizer_state.param_groups_of([optimizer], frozen.tensor)))
    for key, value in optimizer.state.get(frozen.tensor, {}).items():
        if _has_shape(value, frozen):
            old = saved.get(key)
            if old is None:
                start = optimizer_state.initial_state_value(optimizer, group, key)
                old = frozen.select(
                    frozen.tensor if start is None else torch.full_like(value, start)
                )
            frozen.assign(value, old)


class _FrozenStatistics:
    """Restores frozen entries of the running statistics of a batch norm.

    `save` and `restore` are forward hooks. A compiler would make them a part of its code, whose
    backward asserts that the statistics have not changed. So they do nothing where it traces them,
    and `restore_after_step` does it instead.
    """

    def __init__(self, norm: nn.Module, at: Tensor) -> None:
        self.norm = norm
        self.at = at
        self.has_restored = False  # since the last optimizer step
        self.saved = self._select()

    def _select(self) -> list[Tensor]:
        return [statistic.index_select(0, self.at) for statistic in _statistics(self.norm)]

    def save(self, module: nn.Module, args: Any) -> None:
        if not torch.compiler.is_compiling() and module.training and not inside_side_effect_free():
            self.saved = self._select()

    def restore(self, module: nn.Module, args: Any, output: Any) -> None:
        if not torch.compiler.is_compiling() and module.training and not inside_side_effect_free():
            self._assign()
            self.has_restored = True

    def restore_after_step(self) -> None:
        """Restore the entries unless the hooks have done it since the last step."""
        if not self.has_restored:
            self._assign()
        self.has_restored = False

    def _assign(self) -> None:
        for statistic, saved in zip(_statistics(self.norm), self.saved, strict=True):
            # Through .data, invisible to autograd: backward asserts that the statistics have not
            # changed since the forward, although in training mode it never reads them.
            statistic.data.index_copy_(0, self.at, saved)


def _statistics(module: nn.Module) -> list[Tensor]:
    found = [getattr(module, "running_mean", None), getattr(module, "running_var", None)]
    return [statistic for statistic in found if isinstance(statistic, Tensor)]
