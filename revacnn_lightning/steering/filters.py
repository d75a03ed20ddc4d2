"""Filters have an id for life; their index changes with every edit."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.conv import _ConvNd

from revacnn_lightning.steering.plan import EditPlan, FilterMove, order_of

__all__ = ["FilterIds"]


class FilterIds:
    """For each conv: the ids of its filters, by index, and which of them are frozen.

    Ids count up per layer and are never used again. Layers appear when first asked for, with the
    ids 0, 1, … of their filters then.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._ids: dict[str, list[int]] = {}
        self._next: dict[str, int] = {}
        self._undo: list[dict[str, list[int]]] = []  # ids before each edit, newest last
        self.frozen: dict[str, set[int]] = {}

    def of(self, layer: str) -> list[int]:
        """The ids of a conv's filters, in the order of its output.

        Raises:
            KeyError: the model has no conv of this name.
        """
        if layer not in self._ids:
            modules = dict(self._model.named_modules())
            conv = modules[layer]
            if not isinstance(conv, _ConvNd):
                raise KeyError(layer)
            self._start(layer, conv.out_channels)
        return list(self._ids[layer])

    def frozen_indices(self, layer: str) -> list[int]:
        """Which filters of a conv are frozen, by index."""
        frozen = self.frozen.get(layer, set())
        return [i for i, each in enumerate(self.of(layer)) if each in frozen]

    def freeze(self, layer: str, ids: Iterable[int]) -> None:
        self.frozen.setdefault(layer, set()).update(ids)

    def unfreeze(self, layer: str, ids: Iterable[int]) -> None:
        left = self.frozen.get(layer, set()) - set(ids)
        self.frozen[layer] = left
        if not left:
            del self.frozen[layer]

    def apply(self, plan: EditPlan) -> None:
        """Follow an edit."""
        before: dict[str, list[int]] = {}
        for move in plan.filters:
            if move.layer not in self._ids:
                self._start(move.layer, move.size)
            before[move.layer] = self._ids[move.layer]
            self._ids[move.layer] = self._moved(move)
        self._undo.append(before)

    def revert(self, plan: EditPlan) -> None:
        """Follow the undoing of the newest edit that was not undone: its filters' ids return."""
        self._ids.update(self._undo.pop())

    def _start(self, layer: str, count: int) -> None:
        self._ids[layer] = list(range(count))
        self._next[layer] = count

    def _moved(self, move: FilterMove) -> list[int]:
        old, moved = self._ids[move.layer], []
        order, new = order_of(move)
        for index, is_new in zip(order.tolist(), new.tolist(), strict=True):
            if is_new:
                moved.append(self._next[move.layer])
                self._next[move.layer] += 1
            else:
                moved.append(old[index])
        return moved
