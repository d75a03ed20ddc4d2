"""Changes that a person has asked for in a tab but not yet sent. Pure data.

Filters are kept by their ids, so what is staged stays right when the network changes meanwhile.
"""

from __future__ import annotations

from msgspec import Struct, field

from revacnn_lightning.protocol.messages import Layer, Planned, RefusedReply, Structure
from revacnn_lightning.protocol.requests import AddFilters, Edit, RemoveFilters

__all__ = ["Staged", "Staging"]

# Within one Apply, removals go first: what is added must not be among what is removed.
ORDER = {"remove": 0, "split": 1, "add": 2}
NAMED_FILTERS = 6  # so many are named one by one in a title


class Staged(Struct):
    """One request to be: all removals, or all additions, of one layer, or one split filter."""

    layer: str
    kind: str  # remove, add, split
    ids: list[int] = field(default_factory=list)  # filters to be removed, or the one to be split
    count: int = 0  # filters to be added
    plan_id: str = ""  # of the dry run that was asked for it
    plan: Planned | RefusedReply | None = None

    @property
    def key(self) -> str:
        """Names the row: one per layer and kind, and one per split filter."""
        split = f"/{self.ids[0]}" if self.kind == "split" else ""
        return f"{self.kind}/{self.layer}{split}"

    @property
    def verb(self) -> str:
        return {"remove": "Remove", "add": "Add", "split": "Split"}[self.kind]

    def title(self, structure: Structure) -> str:
        """What it is about: ``conv2 · filters 3, 36``."""
        if self.kind == "add":
            return f"{self.count} filter{'s' if self.count > 1 else ''} to {self.layer}"
        indices = sorted(_indices(structure, self))
        if len(indices) > NAMED_FILTERS:
            return f"{self.layer} · {len(indices)} filters"
        plural = "s" if len(indices) != 1 else ""
        return f"{self.layer} · filter{plural} {', '.join(map(str, indices))}"

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
        return RemoveFilters(self.layer, indices)


class Staging:
    """All that is staged in a tab, one row per request that Apply would send."""

    def __init__(self) -> None:
        self.rows: list[Staged] = []

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
        row = Staged(layer, "split", ids=[filter_id])
        if all(row.key != other.key for other in self.rows):
            self.rows.append(row)

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
            there = set() if layer is None else set(layer.ids)
            row.ids = [i for i in row.ids if i in there]
            row.plan, row.plan_id = None, ""
        self.rows = [row for row in self.rows if row.edit(structure) is not None]

    def in_order(self) -> list[Staged]:
        """The rows in the order in which Apply sends them."""
        return sorted(self.rows, key=lambda row: ORDER[row.kind])

    def _row(self, layer: str, kind: str) -> Staged:
        for row in self.rows:
            if (row.layer, row.kind) == (layer, kind):
                return row
        row = Staged(layer, kind)
        self.rows.append(row)
        return row

    def _changed(self, row: Staged) -> None:
        row.plan, row.plan_id = None, ""
        if not row.ids and not row.count:
            self.rows.remove(row)


def _layer(structure: Structure, name: str) -> Layer | None:
    return next((layer for layer in structure.layers if layer.name == name), None)


def _indices(structure: Structure, row: Staged) -> list[int]:
    layer = _layer(structure, row.layer)
    if layer is None:
        return []
    at = {id_: i for i, id_ in enumerate(layer.ids)}
    return [at[id_] for id_ in row.ids if id_ in at]
