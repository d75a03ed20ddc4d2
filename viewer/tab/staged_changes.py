"""Changes that are staged in a tab and not sent yet. Pure data."""

from __future__ import annotations

from collections.abc import Callable

from revacnn_lightning.protocol.messages import Structure
from revacnn_lightning.protocol.requests import SetGradientClipping

from .staged_change import Block, StagedChange, layer_filter_ids

__all__ = ["StagedChanges"]

# Removals are sent before additions: added filters must not be among the removed indices. Layers
# come last, because the other changes name layers as they are now.
SEND_ORDER = [
    *("clip", "set", "reinitialize", "freeze", "unfreeze", "scale_rate"),
    *("merge", "remove", "split", "add"),
    *("insert_layer", "remove_layer"),
]


class StagedChanges:
    """Everything staged in a tab, one change per request that Apply sends."""

    def __init__(self) -> None:
        self.changes: list[StagedChange] = []

    def toggle_removal(self, layer: str, filter_id: int) -> None:
        """Stage the removal of a filter, or discard it if it is staged."""
        change = self._find_or_add(layer, "remove")
        if filter_id in change.ids:
            change.ids.remove(filter_id)
        else:
            change.ids.append(filter_id)
        self._on_edited(change)

    def add(self, layer: str, count: int = 1, *, directed: bool = False) -> None:
        """Stage more new filters; ``directed``: all of them in the best directions."""
        change = self._find_or_add(layer, "add")
        change.count += count
        change.is_directed |= directed
        self._on_edited(change)

    def discard_one_added(self, layer: str) -> bool:
        """Discard one staged new filter; return whether there was one."""
        change = next((one for one in self.changes if one.key == f"add/{layer}"), None)
        if change is None:
            return False
        change.count -= 1
        self._on_edited(change)
        return True

    def discard_last_removal(self, layer: str) -> bool:
        """Discard the newest staged removal of a filter; return whether there was one."""
        change = next((one for one in self.changes if one.key == f"remove/{layer}"), None)
        if change is None:
            return False
        change.ids.pop()
        self._on_edited(change)
        return True

    def insert_layer(self, layer: str, block: Block) -> None:
        """Stage a block after a layer, or discard it if it is staged."""
        self._toggle(StagedChange(layer, "insert_layer", block=block), lambda one: one.block)

    def remove_layer(self, layer: str) -> None:
        """Stage the removal of a layer or of a block of layers, or discard it if it is staged."""
        self._toggle(StagedChange(layer, "remove_layer"), lambda one: one.layer)

    def split(self, layer: str, filter_id: int) -> None:
        """Stage the split of a filter."""
        change = StagedChange(layer, "split", ids=[filter_id])
        if all(change.key != other.key for other in self.changes):
            self.changes.append(change)

    def replace(self, change: StagedChange) -> None:
        """Stage a change in place of the one with the same key."""
        self.changes = [other for other in self.changes if other.key != change.key]
        self.changes.append(change)

    def toggle_change(self, kind: str, layer: str, ids: list[int]) -> None:
        """Stage a change of exactly these filters, or discard it if exactly it is staged."""
        self._toggle(StagedChange(layer, kind, ids=list(ids)), lambda one: set(one.ids))

    def merge(self, layer: str, ids: list[int], scales: dict[int, float]) -> None:
        """Stage the merge of filters, or discard it; see `StagedChange` for ``scales``."""
        change = StagedChange(layer, "merge", ids=list(ids), scales=scales)
        self._toggle(change, lambda one: set(one.ids))

    def scale_rate(self, layer: str, factor: float) -> None:
        """Stage the factor of a layer's learning rate, or discard it if it is staged."""
        self._toggle(StagedChange(layer, "scale_rate", factor=factor), lambda one: one.factor)

    def clip(self, request: SetGradientClipping) -> None:
        """Stage how to clip the gradients, or discard it if it is staged."""
        self._toggle(StagedChange("", "clip", clipping=request), lambda one: one.clipping)

    def set_clipping(self, request: SetGradientClipping) -> None:
        """Stage how to clip the gradients, in the place of what is staged of it."""
        change = StagedChange("", "clip", clipping=request)
        keys = [other.key for other in self.changes]
        if change.key in keys:
            self.changes[keys.index(change.key)] = change
        else:
            self.changes.append(change)

    def discard_rate(self, layer: str) -> bool:
        """Discard the staged factor of a layer's learning rate; return whether there was one."""
        count = len(self.changes)
        self.discard(f"scale_rate/{layer}")
        return len(self.changes) < count

    def _toggle(self, change: StagedChange, content: Callable[[StagedChange], object]) -> None:
        """Stage a change, or discard the staged one with the same key and content."""
        staged = next((other for other in self.changes if other.key == change.key), None)
        if staged is not None and content(staged) == content(change):
            self.changes.remove(staged)
        else:
            self.replace(change)

    def toggle_confirmed(self, key: str) -> None:
        """Confirm what the plan of a change says to confirm, or take that back."""
        for change in self.changes:
            if change.key == key:
                change.is_confirmed = not change.is_confirmed

    def discard(self, key: str = "") -> None:
        """Discard the change with this key, or all changes."""
        self.changes = [change for change in self.changes if key and change.key != key]

    def removed_ids(self, layer: str) -> list[int]:
        """Return the ids of the layer's filters whose removal is staged."""
        return [
            id_
            for change in self.changes
            if (change.layer, change.kind) == (layer, "remove")
            for id_ in change.ids
        ]

    def update_structure(self, structure: Structure) -> None:
        """Drop removed filters, void changes, and plans made for an earlier structure."""
        for change in self.changes:
            present = layer_filter_ids(structure, change.layer)
            change.ids = [id_ for id_ in change.ids if id_ in present]
            change.plan, change.plan_id = None, ""
        self.changes = [one for one in self.changes if one.to_request(structure) is not None]

    def in_send_order(self) -> list[StagedChange]:
        """Return the changes in the order in which Apply sends them."""
        return sorted(self.changes, key=lambda change: SEND_ORDER.index(change.kind))

    def _find_or_add(self, layer: str, kind: str) -> StagedChange:
        for change in self.changes:
            if (change.layer, change.kind) == (layer, kind):
                return change
        change = StagedChange(layer, kind)
        self.changes.append(change)
        return change

    def _on_edited(self, change: StagedChange) -> None:
        """Invalidate the plan of an edited change, and drop the change if it is empty."""
        change.plan, change.plan_id, change.is_confirmed = None, "", False
        if not change.ids and not change.count:
            self.changes.remove(change)
