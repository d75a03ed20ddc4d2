"""A selected filter, and what is selected in its place once it is removed."""

from __future__ import annotations

from msgspec import Struct

from revacnn_lightning.protocol.messages import LayerInfo, Structure

__all__ = ["FilterReference", "find_filter_position", "find_replacement_filter"]


class FilterReference(Struct, frozen=True):
    """A reference to a filter that survives edits: the name of its layer and its id."""

    layer: str
    filter_id: int


def find_replacement_filter(
    removed_filter: FilterReference | None,
    previous_structure: Structure | None,
    structure: Structure,
) -> FilterReference:
    """Return the filter to select instead of a removed one.

    It is the next remaining filter of the same layer, or the previous one if there is no next. In
    place of a removed layer it is the first filter of the layer before it.
    """
    layer = structure.layers[0]
    if removed_filter is not None:
        layer = _layer_or_previous(removed_filter.layer, previous_structure, structure)
    before = (
        [one.filter_ids for one in previous_structure.layers if one.name == layer.name]
        if previous_structure
        else []
    )
    if removed_filter is None or not before or removed_filter.filter_id not in before[0]:
        return FilterReference(layer.name, layer.filter_ids[0])
    index, remaining = before[0].index(removed_filter.filter_id), set(layer.filter_ids)
    candidates = [*before[0][index:], *reversed(before[0][:index])]
    found = next((id_ for id_ in candidates if id_ in remaining), layer.filter_ids[0])
    return FilterReference(layer.name, found)


def _layer_or_previous(name: str, previous: Structure | None, structure: Structure) -> LayerInfo:
    """Return the layer of this name, else the nearest remaining one before it, else the first."""
    remaining = {layer.name: layer for layer in structure.layers}
    names = [layer.name for layer in previous.layers] if previous is not None else []
    before = names[: names.index(name) + 1] if name in names else [name]
    found = next((one for one in reversed(before) if one in remaining), structure.layers[0].name)
    return remaining[found]


def find_filter_position(
    structure: Structure, selection: FilterReference
) -> tuple[int, int] | None:
    """Return the layer and filter index of a selection; None if the network has no such filter."""
    for i, layer in enumerate(structure.layers):
        if layer.name == selection.layer and selection.filter_id in layer.filter_ids:
            return i, layer.filter_ids.index(selection.filter_id)
    return None
