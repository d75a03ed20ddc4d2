"""Small activation maps, and their gradients, that are summed together when all have arrived.

In the middle of a forward or of a backward pass, each operation starts with cold instructions: the
sum of a small map takes the host as long as a convolution of it. One operation on the maps of many
layers takes little longer than one on a single map.

A map is kept only if autograd keeps it, too, and refuses to go back through it once something has
written to it. Nothing is withheld from the allocator that way, and no other values are summed. A
gradient is withheld, but all of them together are small.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from revacnn_lightning.telemetry.recording.batch_state import BatchState
from revacnn_lightning.telemetry.recording.flat_buffer import FlatBuffer
from revacnn_lightning.telemetry.recording.slot_reductions import (
    Reduction,
    build_gradient_reductions,
    build_map_reductions,
)
from revacnn_lightning.telemetry.recording.timing import Stopwatch
from revacnn_lightning.telemetry.reductions import BLOCK

if TYPE_CHECKING:
    from revacnn_lightning.telemetry.recording.map_reducer import MapReducer

__all__ = ["MAX_DEFERRED", "DeferredGradients", "DeferredMaps", "is_kept_by_autograd"]

MAX_DEFERRED = 2 * BLOCK  # elements of all maps together, and of all gradients
MAX_KEPT = 16  # sets of maps that are summed together; a training has one per backward pass

_SAVED = (nn.ReLU, nn.Sigmoid, nn.Tanh)  # their backward reads what they have returned

Waiting = tuple["MapReducer", Tensor, int]  # with the version of the tensor


def is_kept_by_autograd(source: nn.Module | None) -> bool:
    """Return whether autograd keeps what a module returns, if that requires a gradient."""
    return type(source) in _SAVED


class _Deferred(ABC):
    """Tensors of the batch that are not summed yet.

    Args:
        batch: the batch under way.
        stopwatch: measures what the sums cost.

    Attributes:
        buffer: the buffer with the slots of the reducers.
        label: the stopwatch's name for the cost.
    """

    label = ""

    def __init__(self, batch: BatchState, stopwatch: Stopwatch) -> None:
        self.buffer: FlatBuffer | None = None
        self._batch = batch
        self._stopwatch = stopwatch
        self._waiting: list[Waiting] = []
        self._groups: dict[tuple[MapReducer, ...], list[_Group]] = {}

    @property
    def add(self) -> Callable[[Waiting], None]:
        """The function that adds a tensor of this reducer, with its version."""
        return self._waiting.append

    def reset(self) -> None:
        """Make new groups, because layers, slots or shapes have changed."""
        self._groups.clear()

    def clear(self) -> None:
        """Discard the tensors that have not been summed."""
        self._waiting.clear()

    def sum(self) -> None:
        """Sum the tensors into their slots. Those that something has written to are lost."""
        if not self._waiting:
            return
        waiting = self._waiting.copy()
        self._waiting.clear()
        start = self._stopwatch.now()
        lost = [reducer for reducer, tensor, version in waiting if tensor._version != version]
        with torch.no_grad():
            self._sum([each for each in waiting if each[0] not in lost] if lost else waiting)
        self._stopwatch.add(self.label, start)
        for reducer in lost:
            self._batch.prepare_sums(reducer.layer)
            self._lose(reducer)

    def _sum(self, waiting: Sequence[Waiting]) -> None:
        order = tuple([reducer for reducer, _, _ in waiting])
        groups = self._groups.get(order)
        if groups is None:
            if len(self._groups) >= MAX_KEPT:
                self._groups.clear()
            groups = self._groups[order] = self._group(order)
        all_maps = [
            output if reducer.to_maps is None else reducer.to_maps(output)
            for reducer, output, _ in waiting
        ]
        for group in groups:
            group.sum(all_maps)

    def _group(self, order: Sequence[MapReducer]) -> list[_Group]:
        """Return the groups of these reducers, whose tensors arrive in this order."""
        runs: list[list[int]] = []
        size = 0
        for position in sorted(range(len(order)), key=lambda each: order[each].layer.columns.start):
            reducer = order[position]
            before = order[runs[-1][-1]] if runs else None
            if (
                before is None
                or not _is_next(before, reducer, size)
                or not self._can_join(before, reducer)
            ):
                runs.append([])
                size = 0
            runs[-1].append(position)
            size += reducer.shape.numel()
        return [_Group(run, self._reductions([order[each] for each in run])) for run in runs]

    def _reductions(self, reducers: Sequence[MapReducer]) -> tuple[Reduction, ...]:
        """Return what reduces the tensors of these reducers side by side, in the order of slots."""
        if len(reducers) == 1:
            return self._own_reductions(reducers[0])
        images, _, *pixels = reducers[0].shape
        columns = slice(reducers[0].layer.columns.start, reducers[-1].layer.columns.stop)
        shape = torch.Size([images, columns.stop - columns.start, *pixels])
        return self._joint_reductions(reducers, shape, columns)

    @abstractmethod
    def _can_join(self, before: MapReducer, reducer: MapReducer) -> bool:
        """Return whether the same is reduced of both."""

    @abstractmethod
    def _own_reductions(self, reducer: MapReducer) -> tuple[Reduction, ...]:
        """Return what reduces a tensor of this reducer."""

    @abstractmethod
    def _joint_reductions(
        self, reducers: Sequence[MapReducer], shape: torch.Size, columns: slice
    ) -> tuple[Reduction, ...]:
        """Return what reduces a tensor of this shape to these columns of the buffer."""

    @abstractmethod
    def _lose(self, reducer: MapReducer) -> None:
        """Discard what the layer of this reducer has of the batch."""


class DeferredMaps(_Deferred):
    """Collects maps of the batch, to sum them together."""

    label = "maps"

    def _can_join(self, before: MapReducer, reducer: MapReducer) -> bool:
        return before.counts_positive == reducer.counts_positive

    def _own_reductions(self, reducer: MapReducer) -> tuple[Reduction, ...]:
        return reducer.reductions

    def _joint_reductions(
        self, reducers: Sequence[MapReducer], shape: torch.Size, columns: slice
    ) -> tuple[Reduction, ...]:
        assert self.buffer is not None
        start, stop = columns.start, columns.stop
        return build_map_reductions(
            shape,
            reducers[0].sums.dtype,
            self.buffer.part("activation", start, stop),
            self.buffer.part("firing", start, stop) if reducers[0].counts_positive else None,
            sum_magnitudes=False,
            has_no_negatives=all(reducer.is_never_negative for reducer in reducers),
        )

    def _lose(self, reducer: MapReducer) -> None:
        reducer.sums.reset()  # the layer has returned a map that no hook has summed


class DeferredGradients(_Deferred):
    """Collects gradients of maps of the batch, to sum them together."""

    label = "map gradients"

    def _can_join(self, before: MapReducer, reducer: MapReducer) -> bool:
        has_same = (before.magnitude is None) == (reducer.magnitude is None)
        return has_same and before.per_image_gradients is reducer.per_image_gradients

    def _own_reductions(self, reducer: MapReducer) -> tuple[Reduction, ...]:
        return reducer.gradient_reductions

    def _joint_reductions(
        self, reducers: Sequence[MapReducer], shape: torch.Size, columns: slice
    ) -> tuple[Reduction, ...]:
        assert self.buffer is not None
        first = reducers[0]
        magnitude = self.buffer.part("activation_gradient", columns.start, columns.stop)
        return build_gradient_reductions(
            shape,
            first.sums.dtype,
            None if first.magnitude is None else magnitude,
            None if first.per_image_gradients is None else first.per_image_gradients.slot(columns),
        )

    def _lose(self, reducer: MapReducer) -> None:
        reducer.sums.discard_gradients()


class _Group:
    """Tensors of one size whose slots are side by side.

    Args:
        positions: the positions of these tensors among all, in the order of their slots.
        reductions: reduce them side by side.
    """

    def __init__(self, positions: Sequence[int], reductions: Sequence[Reduction]) -> None:
        self._select = operator.itemgetter(*positions)
        self._is_joined = len(positions) > 1
        self._reductions = reductions

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Sum these of all tensors."""
        selected = self._select(tensors)
        joined = torch.cat(selected, 1) if self._is_joined else selected
        for reduce in self._reductions:
            reduce(joined)


def _is_next(before: MapReducer, reducer: MapReducer, size: int) -> bool:
    """Return whether a map fits beside the one before it, whose group has so many elements."""
    return (
        before.layer.columns.stop == reducer.layer.columns.start
        and (before.shape[0], *before.shape[2:]) == (reducer.shape[0], *reducer.shape[2:])
        and before.sums.dtype == reducer.sums.dtype
        and size + reducer.shape.numel() <= BLOCK
    )
