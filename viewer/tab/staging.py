"""Changes that are staged in a tab and not sent yet. Pure data.

Filters are identified by their ids, so a staged change stays correct when other edits shift
indices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec import Struct, field
from msgspec.structs import replace

from revacnn_lightning.protocol.messages import LayerInfo, Planned, Refused, Structure
from revacnn_lightning.protocol.requests import (
    AddFilters,
    Edit,
    Freeze,
    InsertLayer,
    MergeFilters,
    Reinitialize,
    RemoveFilters,
    RemoveLayer,
    SetFilter,
    Unfreeze,
)

__all__ = ["Block", "StagedChange", "Staging"]

Block = Literal["residual", "dirac"]

# Removals are sent before additions: added filters must not be among the removed indices. Layers
# come last, because the other changes name layers as they are now.
SEND_ORDER = [
    *("set", "reinitialize", "freeze", "unfreeze", "merge", "remove", "split", "add"),
    *("insert_layer", "remove_layer"),
]
VERBS = {
    "add": "Add",
    "freeze": "Freeze",
    "insert_layer": "Insert",
    "merge": "Merge",
    "reinitialize": "Reinitialize",
    "remove": "Remove",
    "remove_layer": "Remove",
    "set": "Set",
    "split": "Split",
    "unfreeze": "Unfreeze",
}
BLOCK_NAMES: dict[str, str] = {"residual": "a residual block", "dirac": "a convolution"}
MAX_LISTED_FILTERS = 6  # a title lists up to this many filters, and counts more


class StagedChange(Struct):
    """One future request, for example all removals or all additions of one layer.

    Attributes:
        layer: name of the layer, or of the block of layers to remove.
        kind: one of VERBS.
        ids: ids of the affected filters.
        count: number of filters to add.
        neighbor_ids: ids of the filters whose weighted mean a filter is set to.
        weights: one per neighbor.
        scales: by id, how strong a merged filter is relative to the strongest; {}: as strong.
        block: what to insert after the layer.
        plan_id: id of the dry run that was requested; "" if none was.
        plan: the reply to the dry run; None before it arrives.
        is_confirmed: whether the person has confirmed what the plan says to confirm.
    """

    layer: str
    kind: str
    ids: list[int] = field(default_factory=list)
    count: int = 0
    neighbor_ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    scales: dict[int, float] = field(default_factory=dict)
    block: Block = "residual"
    plan_id: str = ""
    plan: Planned | Refused | None = None
    is_confirmed: bool = False

    @property
    def confirmation(self) -> str:
        """What has to be confirmed before the change is sent; "" if nothing has to be."""
        return self.plan.plan.confirmation if isinstance(self.plan, Planned) else ""

    @property
    def key(self) -> str:
        """Identifies the change: one per layer and kind, and one per split or set filter."""
        suffix = f"/{self.ids[0]}" if self.kind in ("split", "set") else ""
        return f"{self.kind}/{self.layer}{suffix}"

    @property
    def verb(self) -> str:
        return VERBS[self.kind]

    def title(self, structure: Structure) -> str:
        """Return what is changed, for example ``conv2 · filters 3, 36``."""
        if self.kind == "add":
            return f"{self.count} filter{'s' if self.count > 1 else ''} to {self.layer}"
        if self.kind == "insert_layer":
            return f"{BLOCK_NAMES[self.block]} after {self.layer}"
        if self.kind == "remove_layer":
            is_layer = _layer(structure, self.layer) is not None
            return f"the {'layer' if is_layer else 'block'} {self.layer}"
        indices = sorted(_indices(structure, self.layer, self.ids))
        if len(indices) > MAX_LISTED_FILTERS:
            return f"{self.layer} · {len(indices)} filters"
        plural = "s" if len(indices) != 1 else ""
        title = f"{self.layer} · filter{plural} {', '.join(map(str, indices))}"
        if self.kind == "set":
            neighbors = _indices(structure, self.layer, self.neighbor_ids)
            title += f" to the mean of {', '.join(map(str, neighbors))}"
        return title

    def to_edit(self, structure: Structure) -> Edit | None:
        """Return the request for this structure; None if nothing is left to change."""
        edit = self._to_edit(structure)
        if self.is_confirmed and isinstance(edit, AddFilters | RemoveFilters | MergeFilters):
            edit = replace(edit, confirmed=True)
        return edit

    def _to_edit(self, structure: Structure) -> Edit | None:
        if self.kind == "remove_layer":
            return RemoveLayer(self.layer) if _contains(structure, self.layer) else None
        if _layer(structure, self.layer) is None:
            return None
        if self.kind == "add":
            return AddFilters(self.layer, self.count)
        if self.kind == "insert_layer":
            return InsertLayer(self.layer, self.block)
        indices = sorted(_indices(structure, self.layer, self.ids))
        if not indices:
            return None
        if self.kind == "split":
            return AddFilters(self.layer, 1, split_from=indices[0])
        if self.kind == "set":
            return self._to_set_filter(structure, indices[0])
        if self.kind == "merge":
            return self._to_merge(structure)
        edits = {"freeze": Freeze, "unfreeze": Unfreeze, "reinitialize": Reinitialize}
        return edits.get(self.kind, RemoveFilters)(self.layer, indices)

    def _to_merge(self, structure: Structure) -> MergeFilters | None:
        """Return the merge into the strongest filter, or else into the first one."""
        present = _ids(structure, self.layer)
        ids = sorted(id_ for id_ in self.ids if id_ in present)
        ids.sort(key=lambda id_: -self.scales.get(id_, 1.0))
        if len(ids) < 2:
            return None
        scales = [self.scales[id_] / self.scales[ids[0]] for id_ in ids] if self.scales else []
        return MergeFilters(self.layer, _indices(structure, self.layer, ids), scales)

    def _to_set_filter(self, structure: Structure, index: int) -> SetFilter | None:
        present = _ids(structure, self.layer)
        neighbors = [
            (id_, weight)
            for id_, weight in zip(self.neighbor_ids, self.weights, strict=True)
            if id_ in present
        ]
        if not neighbors:
            return None
        indices = _indices(structure, self.layer, [id_ for id_, _ in neighbors])
        return SetFilter(self.layer, index, indices, [weight for _, weight in neighbors])


class Staging:
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

    def add(self, layer: str, count: int = 1) -> None:
        """Stage more new filters."""
        change = self._find_or_add(layer, "add")
        change.count += count
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

    def toggle(self, kind: str, layer: str, ids: list[int]) -> None:
        """Stage a change of exactly these filters, or discard it if exactly it is staged."""
        self._toggle(StagedChange(layer, kind, ids=list(ids)), lambda one: set(one.ids))

    def merge(self, layer: str, ids: list[int], scales: dict[int, float]) -> None:
        """Stage the merge of filters, or discard it; see `StagedChange` for ``scales``."""
        change = StagedChange(layer, "merge", ids=list(ids), scales=scales)
        self._toggle(change, lambda one: set(one.ids))

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
            present = _ids(structure, change.layer)
            change.ids = [id_ for id_ in change.ids if id_ in present]
            change.plan, change.plan_id = None, ""
        self.changes = [one for one in self.changes if one.to_edit(structure) is not None]

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


def _layer(structure: Structure, name: str) -> LayerInfo | None:
    return next((layer for layer in structure.layers if layer.name == name), None)


def _contains(structure: Structure, path: str) -> bool:
    """Return whether a layer has this name, or lies in the module of this name."""
    return any(f"{layer.name}.".startswith(f"{path}.") for layer in structure.layers)


def _ids(structure: Structure, layer_name: str) -> set[int]:
    """Return the filter ids of a layer; an empty set if the layer does not exist."""
    layer = _layer(structure, layer_name)
    return set() if layer is None else set(layer.filter_ids)


def _indices(structure: Structure, layer_name: str, ids: list[int]) -> list[int]:
    """Return the indices of those filters that exist."""
    layer = _layer(structure, layer_name)
    index_of = {} if layer is None else {id_: i for i, id_ in enumerate(layer.filter_ids)}
    return [index_of[id_] for id_ in ids if id_ in index_of]
