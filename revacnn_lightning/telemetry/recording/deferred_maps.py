"""Small activation maps that are summed together, when the forward has returned all of them.

In the middle of a forward, each operation starts with cold instructions: the sum of a small map
takes the host as long as a convolution of it. One operation on the maps of many layers takes little
longer than one on a single map.

A map is kept only if autograd keeps it, too, and refuses to go back through it once something has
written to it. Nothing is withheld from the allocator that way, and no other values are summed.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from revacnn_lightning.telemetry.recording.batch_state import BatchState
from revacnn_lightning.telemetry.recording.flat_buffer import FlatBuffer
from revacnn_lightning.telemetry.recording.slot_reductions import Reduction, map_reductions
from revacnn_lightning.telemetry.recording.timing import Stopwatch
from revacnn_lightning.telemetry.reductions import BLOCK

if TYPE_CHECKING:
    from revacnn_lightning.telemetry.recording.compiled_hooks import MapPath

__all__ = ["MAX_DEFERRED", "DeferredMaps", "is_kept_by_autograd"]

MAX_DEFERRED = 2 * BLOCK  # elements of all maps together
MAX_KEPT = 16  # sets of maps that are summed together; a training has one per backward pass

_SAVED = (nn.ReLU, nn.Sigmoid, nn.Tanh)  # their backward reads what they have returned


def is_kept_by_autograd(source: nn.Module | None) -> bool:
    """Return whether autograd keeps what a module returns, if that requires a gradient."""
    return type(source) in _SAVED


class DeferredMaps:
    """The maps of the batch that are not summed yet.

    Args:
        batch: the batch under way.
        stopwatch: measures what the sums cost.

    Attributes:
        buffer: has the slots of the paths.
    """

    def __init__(self, batch: BatchState, stopwatch: Stopwatch) -> None:
        self.buffer: FlatBuffer | None = None
        self._batch = batch
        self._stopwatch = stopwatch
        self._waiting: list[tuple[MapPath, Tensor, int]] = []  # with the versions of the maps
        self._groups: dict[tuple[MapPath, ...], list[_Group]] = {}

    @property
    def add(self) -> Callable[[tuple[MapPath, Tensor, int]], None]:
        """The function that adds a map on this path, with its version."""
        return self._waiting.append

    def forget(self) -> None:
        """Make new groups: layers, slots or shapes are others."""
        self._groups.clear()

    def clear(self) -> None:
        """Discard the maps that have not been summed."""
        self._waiting.clear()

    def sum(self) -> None:
        """Sum the maps into their slots. Those that something has written to are lost."""
        if not self._waiting:
            return
        waiting = self._waiting.copy()
        self._waiting.clear()
        start = self._stopwatch.now()
        lost = [path for path, output, version in waiting if output._version != version]
        with torch.no_grad():
            self._sum([each for each in waiting if each[0] not in lost] if lost else waiting)
        self._stopwatch.add("maps", start)
        for path in lost:
            self._batch.touch(path.layer)
            path.sums.reset()  # the layer has returned a map that no hook has summed

    def _sum(self, waiting: Sequence[tuple[MapPath, Tensor, int]]) -> None:
        order = tuple([path for path, _, _ in waiting])
        groups = self._groups.get(order)
        if groups is None:
            assert self.buffer is not None
            if len(self._groups) >= MAX_KEPT:
                self._groups.clear()
            groups = self._groups[order] = _group(order, self.buffer)
        outputs = [output for _, output, _ in waiting]
        for group in groups:
            group.sum(outputs)


class _Group:
    """Maps of one size whose slots are side by side.

    Args:
        paths: in the order of their slots.
        positions: of their maps among all maps.
        buffer: has the slots.
    """

    def __init__(
        self, paths: Sequence[MapPath], positions: Sequence[int], buffer: FlatBuffer
    ) -> None:
        self._select = operator.itemgetter(*positions)
        self._is_joined = len(paths) > 1
        self._reductions: tuple[Reduction, ...] = paths[0].reductions
        if self._is_joined:
            images, _, *pixels = paths[0].shape
            start, stop = paths[0].layer.columns.start, paths[-1].layer.columns.stop
            counts_positive = paths[0].counts_positive
            self._reductions = map_reductions(
                torch.Size([images, stop - start, *pixels]),
                paths[0].sums.dtype,
                buffer.part("activation", start, stop),
                buffer.part("firing", start, stop) if counts_positive else None,
                absolute=False,
                never_negative=all(path.is_never_negative for path in paths),
            )

    def sum(self, outputs: Sequence[Tensor]) -> None:
        """Sum these of all maps."""
        selected = self._select(outputs)
        maps = torch.cat(selected, 1) if self._is_joined else selected
        for reduce in self._reductions:
            reduce(maps)


def _group(order: Sequence[MapPath], buffer: FlatBuffer) -> list[_Group]:
    """Return the groups of these paths, whose maps arrive in this order."""
    runs: list[list[int]] = []
    size = 0
    for position in sorted(range(len(order)), key=lambda each: order[each].layer.columns.start):
        path = order[position]
        if not runs or not _can_join(order[runs[-1][-1]], path, size):
            runs.append([])
            size = 0
        runs[-1].append(position)
        size += path.shape.numel()
    return [_Group([order[each] for each in run], run, buffer) for run in runs]


def _can_join(before: MapPath, path: MapPath, size: int) -> bool:
    """Return whether a map is summed with the one before it, whose group has so many elements."""
    return (
        before.layer.columns.stop == path.layer.columns.start
        and (before.shape[0], *before.shape[2:]) == (path.shape[0], *path.shape[2:])
        and before.sums.dtype == path.sums.dtype
        and before.counts_positive == path.counts_positive
        and size + path.shape.numel() <= BLOCK
    )
