"""Changes that a person has asked for in a tab but not yet sent. Pure data.

Filters are kept by their ids, so what is staged stays right when the network changes meanwhile.
"""

from __future__ import annotations

from msgspec import Struct, field

from revacnn_lightning.protocol.messages import Layer, Planned, Refused, Structure
from revacnn_lightning.protocol.requests import (
    AddFilters,
    Edit,
    Freeze,
    MergeFilters,
    Reinitialize,
    RemoveFilters,
    SetFilter,
    Unfreeze,
)

__all__ = ["StagedChange", "Staging"]

# Within one Apply, removals go before additions: what is added must not be among what is removed.
ORDER = ["set", "reinitialize", "freeze", "unfreeze", "merge", "remove", "split", "add"]
VERBS = {
    "add": "Add",
    "freeze": "Freeze",
    "merge": "Merge",
    "reinitialize": "Re-initialise",
    "remove": "Remove",
    "set": "Set",
    "split": "Split",
    "unfreeze": "Unfreeze",
}
NAMED_FILTERS = 6  # so many are named one by one in a title


class StagedChange(Struct):
    """One request to be: all removals, or all additions, of one layer, or one split filter, ..."""

    layer: str
    kind: str  # one of VERBS
    ids: list[int] = field(default_factory=list)  # filters that it is about
    count: int = 0  # filters to be added
    neighbours: list[int] = field(default_factory=list)  # ids that a filter is set to the mean of
    weights: list[float] = field(default_factory=list)  # of the neighbours
    plan_id: str = ""  # of the dry run that was asked for it
    plan: Planned | Refused | None = None

    @property
    def key(self) -> str:
        """Names the row: one per layer and kind, and one per filter split or set."""
        one = f"/{self.ids[0]}" if self.kind in ("split", "set") else ""
        return f"{self.kind}/{self.layer}{one}"

    @property
    def verb(self) -> str:
        return VERBS[self.kind]

    def title(self, structure: Structure) -> str:
        """What it is about: ``conv2 · filters 3, 36``."""
        if self.kind == "add":
            return f"{self.count} filter{'s' if self.count > 1 else ''} to {self.layer}"
        indices = sorted(_indices(structure, self))
        if len(indices) > NAMED_FILTERS:
            return f"{self.layer} · {len(indices)} filters"
        plural = "s" if len(indices) != 1 else ""
        title = f"{self.layer} · filter{plural} {', '.join(map(str, indices))}"
        if self.kind == "set":
            near = ", ".join(map(str, _places(structure, self.layer, self.neighbours)))
            title += f" to the mean of {near}"
        return title

    def edit(self, structure: Structure) -> Edit | None:
        """The request in terms of this structure; None if it has become void."""
        if _layer(structure, self.layer) is None:
            return None
        if self.kind == "add":
            return AddFilters(self.layer, self.count)
        indices = sorted(_indices(structure, self))
        if not indices:
            return None
        if self.kind == "split":
            return AddFilters(self.layer, 1, split_from=indices[0])
        if self.kind == "set":
            return self._set(structure, indices[0])
        if self.kind == "merge":
            return MergeFilters(self.layer, indices) if len(indices) > 1 else None
        edits = {"freeze": Freeze, "unfreeze": Unfreeze, "reinitialize": Reinitialize}
        return edits.get(self.kind, RemoveFilters)(self.layer, indices)

    def _set(self, structure: Structure, index: int) -> SetFilter | None:
        layer = _layer(structure, self.layer)
        there = set() if layer is None else set(layer.filter_ids)
        pairs = [p for p in zip(self.neighbours, self.weights, strict=True) if p[0] in there]
        if not pairs:
            return None
        near = _places(structure, self.layer, [id_ for id_, _ in pairs])
        return SetFilter(self.layer, index, near, [weight for _, weight in pairs])


class Staging:
    """All that is staged in a tab, one row per request that Apply would send."""

    def __init__(self) -> None:
        self.rows: list[StagedChange] = []

    def toggle_removal(self, layer: str, filter_id: int) -> None:
        """Stage the removal of a filter, or take that back."""
        row = self._row(layer, "remove")
        if filter_id in row.ids:
            row.ids.remove(filter_id)
        else:
            row.ids.append(filter_id)
        self._changed(row)

    def add(self, layer: str) -> None:
        """Stage one more filter."""
        row = self._row(layer, "add")
        row.count += 1
        self._changed(row)

    def split(self, layer: str, filter_id: int) -> None:
        """Stage a split of a filter."""
        row = StagedChange(layer, "split", ids=[filter_id])
        if all(row.key != other.key for other in self.rows):
            self.rows.append(row)

    def put(self, row: StagedChange) -> None:
        """Stage a row in place of one of the same key."""
        self.rows = [other for other in self.rows if other.key != row.key]
        self.rows.append(row)

    def toggle(self, kind: str, layer: str, ids: list[int]) -> None:
        """Stage this for these filters and no others, or take that back if it is so staged."""
        row = StagedChange(layer, kind, ids=list(ids))
        known = next((other for other in self.rows if other.key == row.key), None)
        if known is not None and set(known.ids) == set(ids):
            self.rows.remove(known)
        else:
            self.put(row)

    def unstage(self, key: str = "") -> None:
        """Forget one row, or all."""
        self.rows = [row for row in self.rows if key and row.key != key]

    def removed_ids(self, layer: str) -> list[int]:
        """Ids of a layer's filters whose removal is staged."""
        return [
            i for row in self.rows if (row.layer, row.kind) == (layer, "remove") for i in row.ids
        ]

    def follow(self, structure: Structure) -> None:
        """The network has changed: drop what is gone, and every plan made for the old one."""
        for row in self.rows:
            layer = _layer(structure, row.layer)
            there = set() if layer is None else set(layer.filter_ids)
            row.ids = [i for i in row.ids if i in there]
            row.plan, row.plan_id = None, ""
        self.rows = [row for row in self.rows if row.edit(structure) is not None]

    def in_order(self) -> list[StagedChange]:
        """The rows in the order in which Apply sends them."""
        return sorted(self.rows, key=lambda row: ORDER.index(row.kind))

    def _row(self, layer: str, kind: str) -> StagedChange:
        for row in self.rows:
            if (row.layer, row.kind) == (layer, kind):
                return row
        row = StagedChange(layer, kind)
        self.rows.append(row)
        return row

    def _changed(self, row: StagedChange) -> None:
        row.plan, row.plan_id = None, ""
        if not row.ids and not row.count:
            self.rows.remove(row)


def _layer(structure: Structure, name: str) -> Layer | None:
    return next((layer for layer in structure.layers if layer.name == name), None)


def _indices(structure: Structure, row: StagedChange) -> list[int]:
    return _places(structure, row.layer, row.ids)


def _places(structure: Structure, layer_name: str, ids: list[int]) -> list[int]:
    """Indices of those of these filters that are there."""
    layer = _layer(structure, layer_name)
    if layer is None:
        return []
    at = {id_: i for i, id_ in enumerate(layer.filter_ids)}
    return [at[id_] for id_ in ids if id_ in at]
