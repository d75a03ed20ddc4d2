"""Norms of the filters of many layers, with few operations.

On a GPU, one kernel reduces the weights of all layers, where Triton has compiled it. Elsewhere,
layers whose filters have one shape, and whose slots are side by side, are copied into one tensor
and reduced together. Which ones these are is decided when the structure changes.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from revacnn_lightning.telemetry.conv import filters_first
from revacnn_lightning.telemetry.recording.flat_buffer import FlatBuffer
from revacnn_lightning.telemetry.recording.fused_group import (
    FilterCopies,
    FusedGroup,
    is_fusible,
)
from revacnn_lightning.telemetry.reductions import (
    BLOCK,
    GPU_RUN,
    SMALL_LAYER,
    filter_l1_norm,
    filter_l2_norm,
)
from revacnn_lightning.telemetry.unit_layers import UnitLayer, is_transposed

__all__ = ["GroupedFilterNorms"]

# One launch of the kernel costs the host as much as the operations of three groups (H200).
MIN_FUSED = 4

# The rows that are reductions over coefficients.
_ROWS = ("norm_after_step", "weight_norm", "update_ratio", "gradient", "optimizer_gradient")


class GroupedFilterNorms:
    """Writes the norms of the filters of many layers to a `FlatBuffer`, one number per filter.

    The tensors are the weights, or have their shapes, such as gradients.

    Args:
        convs: the layers, in the order of their slots.
        weights: the weight of each layer.
        columns: the filters of each layer in the buffer.
        buffer: receives the norms.
    """

    def __init__(
        self,
        convs: Sequence[UnitLayer],
        weights: Sequence[Tensor],
        columns: Sequence[slice],
        buffer: FlatBuffer,
    ) -> None:
        layers = [
            _Layer(*each, position)
            for position, each in enumerate(zip(convs, weights, columns, strict=True))
        ]
        fusible: dict[torch.dtype, list[_Layer]] = {}
        separate = []
        for layer in layers:
            if is_fusible(layer.weight) and not is_transposed(layer.conv):
                fusible.setdefault(layer.weight.dtype, []).append(layer)
            else:
                separate.append(layer)
        self._groups: list[_Group | _FusedLayers] = [*_groups(separate, buffer)]
        for fused in fusible.values():
            groups = _groups(fused, buffer)
            is_worth_it = len(groups) >= MIN_FUSED
            self._groups += [_FusedLayers(fused, groups, buffer)] if is_worth_it else groups

    def write_l1_norms(self, row: str, tensors: Sequence[Tensor]) -> None:
        """Write the L1 norm of each filter to a row."""
        for group in self._groups:
            group.write_l1_norms(row, tensors)

    def write_l2_norms(self, tensors: Mapping[str, Sequence[Tensor]]) -> None:
        """Write the L2 norm of each filter to the row that its tensors are given for."""
        for group in self._groups:
            group.write_l2_norms(tensors)

    def copy(self, tensors: Sequence[Tensor]) -> list[Any]:
        """Return copies for `write_change_norms`."""
        return [group.copy(tensors) for group in self._groups]

    def write_change_norms(self, tensors: Sequence[Tensor], before: Sequence[Any]) -> None:
        """Write ‖Δw‖ and ‖w‖ of each filter. Overwrites ``before``, which `copy` has returned."""
        for group, copies in zip(self._groups, before, strict=True):
            group.write_change_norms(tensors, copies)


class _Layer(NamedTuple):
    """A layer with its weight, its filters in the buffer, and its position among all layers."""

    conv: UnitLayer
    weight: Tensor
    columns: slice
    position: int

    @property
    def is_ordinary(self) -> bool:
        """Whether the filters are along the first dimension of the weight."""
        return filters_first(self.weight, self.conv) is self.weight


class _Group:
    """Layers that are reduced together, side by side in the buffer."""

    def __init__(self, layers: Sequence[_Layer], buffer: FlatBuffer) -> None:
        start, stop = layers[0].columns.start, layers[-1].columns.stop
        self._slots = {row: buffer.part(row, start, stop) for row in _ROWS}
        self._conv = layers[0].conv
        self._select = operator.itemgetter(*(layer.position for layer in layers))
        self._is_copied = len(layers) > 1

    def write_l1_norms(self, row: str, tensors: Sequence[Tensor]) -> None:
        """See `GroupedFilterNorms`."""
        filter_l1_norm(self._pack(tensors), self._slots[row], may_overwrite=self._is_copied)

    def write_l2_norms(self, tensors: Mapping[str, Sequence[Tensor]]) -> None:
        """See `GroupedFilterNorms`."""
        for row, values in tensors.items():
            filter_l2_norm(self._pack(values), self._slots[row])

    def copy(self, tensors: Sequence[Tensor]) -> Tensor:
        """See `GroupedFilterNorms`."""
        filters = self._pack(tensors)
        return filters if self._is_copied else filters.clone()

    def write_change_norms(self, tensors: Sequence[Tensor], before: Tensor) -> None:
        """See `GroupedFilterNorms`."""
        filters = self._pack(tensors)
        filter_l2_norm(before.sub_(filters), self._slots["update_ratio"])
        filter_l2_norm(filters, self._slots["norm_after_step"])

    def _pack(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the filters of all layers of the group along the first dimension."""
        selected = self._select(tensors)
        return torch.cat(selected) if self._is_copied else filters_first(selected, self._conv)


class _FusedLayers:
    """Layers that a kernel reduces; the groups of the same layers do where it cannot."""

    def __init__(
        self, layers: Sequence[_Layer], groups: Sequence[_Group], buffer: FlatBuffer
    ) -> None:
        self._groups = groups
        self._positions = [layer.position for layer in layers]
        weights, columns = [each.weight for each in layers], [each.columns for each in layers]
        self._kernel = FusedGroup(weights, columns, buffer)

    def write_l1_norms(self, row: str, tensors: Sequence[Tensor]) -> None:
        """See `GroupedFilterNorms`."""
        if not self._kernel.write_norms(1, {row: self._own(tensors)}):
            for group in self._groups:
                group.write_l1_norms(row, tensors)

    def write_l2_norms(self, tensors: Mapping[str, Sequence[Tensor]]) -> None:
        """See `GroupedFilterNorms`."""
        if not self._kernel.write_norms(2, {row: self._own(each) for row, each in tensors.items()}):
            for group in self._groups:
                group.write_l2_norms(tensors)

    def copy(self, tensors: Sequence[Tensor]) -> FilterCopies | list[Tensor]:
        """See `GroupedFilterNorms`."""
        copies = self._kernel.copy(self._own(tensors))
        return [group.copy(tensors) for group in self._groups] if copies is None else copies

    def write_change_norms(
        self, tensors: Sequence[Tensor], before: FilterCopies | list[Tensor]
    ) -> None:
        """See `GroupedFilterNorms`."""
        if isinstance(before, FilterCopies):
            if self._kernel.write_change_norms(self._own(tensors), before):
                return
            all_copies = list(tensors)
            for at, copy in zip(self._positions, self._kernel.as_tensors(before), strict=True):
                all_copies[at] = copy
            before = [group.copy(all_copies) for group in self._groups]
        for group, copies in zip(self._groups, before, strict=True):
            group.write_change_norms(tensors, copies)

    def _own(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [tensors[position] for position in self._positions]


def _groups(layers: Sequence[_Layer], buffer: FlatBuffer) -> list[_Group]:
    """Return the groups of these layers."""
    runs: list[list[_Layer]] = []
    size = 0
    for layer in layers:
        if not runs or not _can_join(runs[-1][-1], layer, size):
            runs.append([])
            size = 0
        runs[-1].append(layer)
        size += layer.weight.numel()
    return [_Group(run, buffer) for run in runs]


def _can_join(before: _Layer, layer: _Layer, size: int) -> bool:
    """Return whether a layer is reduced with the one before it, whose group has this size.

    On a CPU, copying pays for small layers: an operation on few elements costs as much as one on
    thousands, and the copy stays in the cache. On a GPU it pays for all.
    """
    weight, is_cuda = layer.weight, layer.weight.is_cuda
    largest = max(before.weight.numel(), weight.numel())
    return (
        before.columns.stop == layer.columns.start
        and before.is_ordinary
        and layer.is_ordinary
        and weight.shape[1:] == before.weight.shape[1:]
        and weight.dtype == before.weight.dtype
        and (is_cuda or largest <= SMALL_LAYER)
        and size + weight.numel() <= (GPU_RUN if is_cuda else BLOCK)
    )
