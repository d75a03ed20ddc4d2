"""Reductions over the weights of many layers, with few operations.

Layers whose filters have one shape, and whose slots are side by side, are copied into one tensor
and reduced together. Which ones these are is decided when the structure changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from revacnn_lightning.telemetry.conv import by_filter
from revacnn_lightning.telemetry.recording.flat_buffer import FlatBuffer
from revacnn_lightning.telemetry.reductions import (
    BLOCK,
    GPU_RUN,
    SMALL_LAYER,
    filter_l1_norm,
    filter_l2_norm,
)
from revacnn_lightning.telemetry.unit_layers import UnitLayer

__all__ = ["CoefficientGroups"]

# The rows that are reductions over coefficients.
_ROWS = ("norm_after_step", "weight_norm", "update_ratio", "gradient", "optimizer_gradient")


class CoefficientGroups:
    """Reduces tensors of the shapes of some weights to one number per filter of a `FlatBuffer`.

    Args:
        convs: the layers, in the order of their slots.
        weights: of each layer.
        columns: the filters of each layer in the buffer.
        buffer: has the slots.
    """

    def __init__(
        self,
        convs: Sequence[UnitLayer],
        weights: Sequence[Tensor],
        columns: Sequence[slice],
        buffer: FlatBuffer,
    ) -> None:
        spans = _spans(convs, weights, columns)
        self._groups = [_Group(span, convs[span.start], columns, buffer) for span in spans]

    def l1(self, row: str, tensors: Sequence[Tensor]) -> None:
        """Write the L1 norm of each filter to a row."""
        for group in self._groups:
            filters = group.pack(tensors)
            filter_l1_norm(filters, group.slots[row], may_overwrite=group.is_copied)

    def l2(self, row: str, tensors: Sequence[Tensor]) -> None:
        """Write the L2 norm of each filter to a row."""
        for group in self._groups:
            filter_l2_norm(group.pack(tensors), group.slots[row])

    def copy(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return copies for `l2_of_changes`."""
        packed = [(group, group.pack(tensors)) for group in self._groups]
        return [filters if group.is_copied else filters.clone() for group, filters in packed]

    def l2_of_changes(self, tensors: Sequence[Tensor], before: Sequence[Tensor]) -> None:
        """Write ‖Δw‖ and ‖w‖ of each filter, and overwrite ``before``, the copies of earlier."""
        for group, change in zip(self._groups, before, strict=True):
            filters = group.pack(tensors)
            filter_l2_norm(change.sub_(filters), group.slots["update_ratio"])
            filter_l2_norm(filters, group.slots["norm_after_step"])


class _Group:
    """Layers that are reduced together: those of the ``span``, of which ``conv`` is the first."""

    def __init__(
        self, span: slice, conv: UnitLayer, columns: Sequence[slice], buffer: FlatBuffer
    ) -> None:
        start, stop = columns[span.start].start, columns[span.stop - 1].stop
        self.slots = {row: buffer.part(row, start, stop) for row in _ROWS}
        self._span = span
        self._conv = conv
        self._is_single = span.stop - span.start == 1
        self.is_copied = not self._is_single

    def pack(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the filters of all layers of the group along the first dimension."""
        if self._is_single:
            return by_filter(tensors[self._span.start], self._conv)
        return torch.cat(tensors[self._span])  # type: ignore[arg-type]


def _spans(
    convs: Sequence[UnitLayer], weights: Sequence[Tensor], columns: Sequence[slice]
) -> Iterator[slice]:
    """Yield runs of layers that are reduced together."""
    start, size = 0, 0
    for index, weight in enumerate(weights):
        if index > start and not (
            columns[index - 1].stop == columns[index].start
            and all(by_filter(weights[at], convs[at]) is weights[at] for at in (index - 1, index))
            and _can_join(weights[index - 1], weight, size)
        ):
            yield slice(start, index)
            start, size = index, 0
        size += weight.numel()
    if weights:
        yield slice(start, len(weights))


def _can_join(before: Tensor, weight: Tensor, size: int) -> bool:
    """Return whether a weight is reduced with the one before it, whose group has this size.

    On a CPU, copying pays for small layers: an operation on few elements costs as much as one on
    thousands, and the copy stays in the cache. On a GPU it pays for all.
    """
    is_cuda = weight.is_cuda
    return (
        weight.shape[1:] == before.shape[1:]
        and weight.dtype == before.dtype
        and (is_cuda or max(before.numel(), weight.numel()) <= SMALL_LAYER)
        and size + weight.numel() <= (GPU_RUN if is_cuda else BLOCK)
    )
