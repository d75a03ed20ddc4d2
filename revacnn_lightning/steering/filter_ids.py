"""Permanent ids of filters, whose indices change with every edit."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from revacnn_lightning.steering.planning.plan import (
    EditPlan,
    FilterMove,
    FreezeOrUnfreezeEdit,
    RateEdit,
    old_indices_and_new_mask,
)
from revacnn_lightning.telemetry.unit_layers import UnitLayer, filter_count

__all__ = ["FilterIds"]


@dataclass
class _UndoState:
    """What to restore when an edit is undone, and the blocks that the edit inserted."""

    ids: dict[str, list[int]]
    frozen: dict[str, set[int]]
    norms: dict[str, list[str]]
    rates: dict[str, float]
    inserted: list[str]


@dataclass
class _RedoState:
    """What to restore when an undone edit is redone."""

    ids: dict[str, list[int]]
    frozen: dict[str, set[int]]
    norms: dict[str, list[str]]
    rates: dict[str, float]


class FilterIds:
    """The ids of every layer's filters, by index, which are frozen, and the layers' rate factors.

    Ids count up per layer and are never reused, not even when a layer is removed and another one
    of its name inserted. A layer gets the ids 0, 1, … for its filters when it is first used.

    Attributes:
        frozen: layer -> ids of its frozen filters.
        norms: layer -> the batch norms whose entries freeze with the layer's filters, and whose
            learning rates are scaled with that of the layer.
        rates: layer -> the factor of its learning rate, where that is not 1.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._ids: dict[str, list[int]] = {}
        self._next: dict[str, int] = {}
        self._convs: dict[str, weakref.ref[UnitLayer]] = {}
        self._undo: list[_UndoState] = []  # one per edit, newest last
        self._redo: list[_RedoState] = []  # one per undone edit, the last undone last
        self.frozen: dict[str, set[int]] = {}
        self.norms: dict[str, list[str]] = {}
        self.rates: dict[str, float] = {}

    def ids_of(self, layer: str) -> list[int]:
        """Return the ids of a conv's filters, in the order of its output.

        Raises:
            KeyError: the model has no conv of this name.
        """
        conv = self._conv_of(layer)
        if conv is None:
            raise KeyError(layer)
        if layer not in self._ids:
            self._assign_ids(layer, filter_count(conv))
        return list(self._ids[layer])

    def frozen_indices(self, layer: str) -> list[int]:
        """Return the indices of a conv's frozen filters."""
        frozen = self.frozen.get(layer, set())
        return [i for i, each in enumerate(self.ids_of(layer)) if each in frozen]

    def apply(self, plan: EditPlan) -> None:
        """Update the ids after an edit."""
        self._redo.clear()
        self._apply(plan)

    def redo(self, plan: EditPlan) -> None:
        """Update the ids after the newest undone edit was redone: its filters get their ids back.

        After a resume they may get other ids, which no viewer of this run has seen before.
        """
        state = self._redo.pop() if self._redo else None
        self._apply(plan)
        if state is not None:
            self._ids.update(state.ids)
            self.frozen, self.norms, self.rates = state.frozen, state.norms, state.rates

    def _apply(self, plan: EditPlan) -> None:
        before = _UndoState(
            {},
            {layer: set(ids) for layer, ids in self.frozen.items()},
            dict(self.norms),
            dict(self.rates),
            [f"{edit.host}.{edit.child}" for edit in plan.layers if edit.action == "insert"],
        )
        for move in plan.filters:
            if move.layer not in self._ids:
                self._assign_ids(move.layer, move.size)
            before.ids[move.layer] = self._ids[move.layer]
            self._ids[move.layer] = self._ids_after(move)
        for edit in plan.freezes:
            self._freeze(edit)
        for rate in plan.rates:
            self._scale(rate)
        for change in plan.layers:
            if change.action == "replace":
                self._forget_rates(change.host)
        if plan.layers:  # a norm may normalize another layer's output now
            self.norms = {layer: plan.norms.get(layer, []) for layer in self.norms}
        self._undo.append(before)
        self._remember_convs()

    def forget_replaced(self) -> None:
        """Forget the filters of convs that the user's code has replaced or removed."""
        for layer in list(self._ids):
            known = self._convs.get(layer)
            conv = self._conv_of(layer)
            if conv is None or known is None or known() is not conv:
                del self._ids[layer]
                self.frozen.pop(layer, None)
                self.norms.pop(layer, None)
                self.rates.pop(layer, None)

    def revert(self) -> None:
        """Restore the ids and frozen filters from before the newest edit, which was undone."""
        before = self._undo.pop()
        inserted = tuple(f"{block}." for block in before.inserted)
        changed = [n for n in self._ids if n in before.ids or n.startswith(inserted)]
        ids = {n: self._ids[n] for n in changed}
        self._redo.append(_RedoState(ids, self.frozen, self.norms, self.rates))
        self._ids.update(before.ids)
        self.frozen, self.norms, self.rates = before.frozen, before.norms, before.rates
        for block in before.inserted:  # a later block of this name may have another width
            for layer in [name for name in self._ids if name.startswith(f"{block}.")]:
                del self._ids[layer]
        self._remember_convs()

    def restore_function(self) -> Callable[[], None]:
        """Return a function that gives all filters the ids that they have now."""
        known = {
            name: value.copy() if isinstance(value, (dict, list)) else value
            for name, value in vars(self).items()
        }

        def restore() -> None:
            vars(self).update(known)

        return restore

    def _freeze(self, edit: FreezeOrUnfreezeEdit) -> None:
        if edit.layer not in self._ids:
            self._assign_ids(edit.layer, edit.size)
        ids = self._ids[edit.layer]
        named = {ids[i] for i in edit.indices}
        frozen = self.frozen.get(edit.layer, set())
        frozen = frozen | named if edit.frozen else frozen - named
        if frozen:
            self.frozen[edit.layer] = frozen
            if edit.frozen:
                self.norms[edit.layer] = edit.norms
        else:
            self.frozen.pop(edit.layer, None)

    def _scale(self, edit: RateEdit) -> None:
        if edit.layer not in self._ids:
            self._assign_ids(edit.layer, edit.size)
        if edit.factor == 1:
            self.rates.pop(edit.layer, None)
        else:
            self.rates[edit.layer], self.norms[edit.layer] = edit.factor, edit.norms

    def _forget_rates(self, removed: str) -> None:
        """Forget the rates of a removed layer or block; what takes its place has the full rate."""
        for layer in [one for one in self.rates if f"{one}.".startswith(f"{removed}.")]:
            del self.rates[layer]

    def _assign_ids(self, layer: str, count: int) -> None:
        first = self._next.get(layer, 0)
        self._next[layer] = first + count
        self._ids[layer] = list(range(first, first + count))
        conv = self._conv_of(layer)
        if conv is not None:
            self._convs[layer] = weakref.ref(conv)

    def _remember_convs(self) -> None:
        """Remember which conv each layer is, after an edit that may have exchanged it."""
        convs = {layer: self._conv_of(layer) for layer in self._ids}
        self._convs = {n: weakref.ref(conv) for n, conv in convs.items() if conv is not None}

    def _conv_of(self, layer: str) -> UnitLayer | None:
        """Return the conv of this name; None if there is none."""
        try:
            module = self._model.get_submodule(layer)
        except AttributeError:
            return None
        return module if isinstance(module, UnitLayer) else None

    def _ids_after(self, move: FilterMove) -> list[int]:
        old, ids = self._ids[move.layer], []
        order, new = old_indices_and_new_mask(move)
        for index, is_new in zip(order.tolist(), new.tolist(), strict=True):
            if is_new:
                ids.append(self._next[move.layer])
                self._next[move.layer] += 1
            else:
                ids.append(old[index])
        return ids
