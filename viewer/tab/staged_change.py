"""One change that is staged in a tab: what it says, and the request that it becomes. Pure data.

Filters are identified by their ids, so a staged change stays correct when other edits shift
indices.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field
from msgspec.structs import replace

from revacnn_lightning.protocol.gradient_clipping import describe_clipping
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
    ScaleLearningRate,
    SetFilter,
    SetGradientClipping,
    Unfreeze,
)

__all__ = ["Block", "StagedChange", "layer_filter_ids"]

Block = Literal["residual", "dirac"]

VERBS = {
    "add": "Add",
    "clip": "Clip",
    "freeze": "Freeze",
    "insert_layer": "Insert",
    "merge": "Merge",
    "reinitialize": "Reinitialize",
    "remove": "Remove",
    "remove_layer": "Remove",
    "scale_rate": "Train",
    "set": "Set",
    "split": "Split",
    "unfreeze": "Unfreeze",
}
BLOCK_NAMES: dict[str, str] = {"residual": "a residual block", "dirac": "a convolution"}
MAX_LISTED_FILTERS = 6  # a title lists up to this many filters, and counts more


class StagedChange(Struct):
    """One future request, for example all removals or all additions of one layer.

    Attributes:
        layer: name of the layer, or of the block of layers to remove; "" for the whole network.
        kind: one of VERBS.
        ids: ids of the affected filters.
        count: number of filters to add.
        is_directed: whether they get the directions of the growth gain.
        neighbor_ids: ids of the filters whose weighted mean a filter is set to.
        weights: one per neighbor.
        scales: by id, how strong a merged filter is relative to the strongest; {}: as strong.
        block: what to insert after the layer.
        factor: of the layer's learning rate.
        clipping: how to clip the gradients; None for all other kinds.
        plan_id: id of the dry run that was requested; "" if none was.
        plan: the reply to the dry run; None before it arrives.
        is_confirmed: whether the person has confirmed what the plan says to confirm.
    """

    layer: str
    kind: str
    ids: list[int] = field(default_factory=list)
    count: int = 0
    is_directed: bool = False
    neighbor_ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    scales: dict[int, float] = field(default_factory=dict)
    block: Block = "residual"
    factor: float = 1.0
    clipping: SetGradientClipping | None = None
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
            where = " where it helps most" if self.is_directed else ""
            return f"{self.count} filter{'s' if self.count > 1 else ''} to {self.layer}{where}"
        if self.kind == "insert_layer":
            return f"{BLOCK_NAMES[self.block]} after {self.layer}"
        if self.kind == "remove_layer":
            is_layer = _layer(structure, self.layer) is not None
            return f"the {'layer' if is_layer else 'block'} {self.layer}"
        if self.kind == "scale_rate":
            rate = "the full" if self.factor == 1 else f"{self.factor:g} × the"
            return f"{self.layer} at {rate} learning rate"
        if self.clipping is not None:
            at = describe_clipping(self.clipping.value, self.clipping.algorithm)
            return f"the gradient at {at}" if self.clipping.value else "no gradient"
        indices = sorted(_indices(structure, self.layer, self.ids))
        if len(indices) > MAX_LISTED_FILTERS:
            return f"{self.layer} · {len(indices)} filters"
        plural = "s" if len(indices) != 1 else ""
        title = f"{self.layer} · filter{plural} {', '.join(map(str, indices))}"
        if self.kind == "set":
            neighbors = _indices(structure, self.layer, self.neighbor_ids)
            title += f" to the mean of {', '.join(map(str, neighbors))}"
        return title

    def to_request(self, structure: Structure) -> Edit | SetGradientClipping | None:
        """Return the request for this structure; None if nothing is left to change."""
        return self.to_edit(structure) if self.clipping is None else self.clipping

    def to_edit(self, structure: Structure) -> Edit | None:
        """Return the edit for this structure; None if there is none, or nothing to change."""
        edit = self._to_edit(structure)
        if self.is_confirmed and isinstance(edit, AddFilters | RemoveFilters | MergeFilters):
            edit = replace(edit, confirmed=True)
        return edit

    def _to_edit(self, structure: Structure) -> Edit | None:
        if self.kind == "remove_layer":
            return RemoveLayer(self.layer) if _contains(structure, self.layer) else None
        layer = _layer(structure, self.layer)
        if layer is None:
            return None
        if self.kind == "scale_rate":
            is_scaled = layer.learning_rate_factor == self.factor
            return None if is_scaled else ScaleLearningRate(self.layer, self.factor)
        if self.kind == "add":
            return AddFilters(self.layer, self.count, directed=self.is_directed)
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
        present = layer_filter_ids(structure, self.layer)
        ids = sorted(id_ for id_ in self.ids if id_ in present)
        ids.sort(key=lambda id_: -self.scales.get(id_, 1.0))
        if len(ids) < 2:
            return None
        scales = [self.scales[id_] / self.scales[ids[0]] for id_ in ids] if self.scales else []
        return MergeFilters(self.layer, _indices(structure, self.layer, ids), scales)

    def _to_set_filter(self, structure: Structure, index: int) -> SetFilter | None:
        present = layer_filter_ids(structure, self.layer)
        neighbors = [
            (id_, weight)
            for id_, weight in zip(self.neighbor_ids, self.weights, strict=True)
            if id_ in present
        ]
        if not neighbors:
            return None
        indices = _indices(structure, self.layer, [id_ for id_, _ in neighbors])
        return SetFilter(self.layer, index, indices, [weight for _, weight in neighbors])


def _layer(structure: Structure, name: str) -> LayerInfo | None:
    return next((layer for layer in structure.layers if layer.name == name), None)


def _contains(structure: Structure, path: str) -> bool:
    """Return whether a layer has this name, or lies in the module of this name."""
    return any(f"{layer.name}.".startswith(f"{path}.") for layer in structure.layers)


def layer_filter_ids(structure: Structure, layer_name: str) -> set[int]:
    """Return the filter ids of a layer; an empty set if the layer does not exist."""
    layer = _layer(structure, layer_name)
    return set() if layer is None else set(layer.filter_ids)


def _indices(structure: Structure, layer_name: str, ids: list[int]) -> list[int]:
    """Return the indices of those filters that exist."""
    layer = _layer(structure, layer_name)
    index_of = {} if layer is None else {id_: i for i, id_ in enumerate(layer.filter_ids)}
    return [index_of[id_] for id_ in ids if id_ in index_of]
