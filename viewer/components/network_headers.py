"""What the page writes above the columns of the network: headers of layers, blocks and stages."""

from __future__ import annotations

from typing import Any

from revacnn_lightning.protocol.messages import LayerInfo, Structure

from ..layout import FRAME_TITLE, Column, NetworkLayout

__all__ = ["network_header_data"]

STAGE_TOP = 26  # px
CROWDED_END_TOP = 2  # px: of the titles of input and output, above the header shown on hover
CHARACTER = 5.2  # px: width of a character of a block's label
OPEN_BUTTON = 13  # px beside it


def network_header_data(structure: Structure, layout: NetworkLayout) -> dict[str, Any]:
    """Return the headers that the page writes above the columns of a layout.

    ``layers`` has one row per layer. One in a closed block has no header of its own: ``block`` is
    the row of its block, -1 otherwise.
    """
    shared = {place for place in layout.ranks if layout.ranks.count(place) > 1}
    rows = [i for i, unit in enumerate(layout.units) if unit.is_block]
    layers = []
    for column, unit in zip(layout.columns, layout.unit_of_layer, strict=True):
        layers.append(
            {
                **_layer_header(structure.layers[column.layer], column),
                "label": layout.labels[unit],
                "header_y": _header_y(layout),
                "lane": layout.ranks[unit] in shared,
                "block": rows.index(unit) if unit in rows else -1,
            }
        )
    return {
        "width": layout.width,
        "height": layout.height,
        "density": layout.density,
        "layers": layers,
        "blocks": [_block_header(structure, layout, unit, shared) for unit in rows],
        "stages": [
            {
                "name": frame.name,
                "path": frame.path,
                "is_module": _is_module(structure, frame.path),
                "left": frame.left,
                "right": frame.right,
                "layer": frame.layer,
                "block": frame.block,
                "top": STAGE_TOP + FRAME_TITLE * frame.level,
                "level": frame.level,
            }
            for frame in layout.stages
        ],
        "stage_top": STAGE_TOP,
        "header_y": _header_y(layout) or CROWDED_END_TOP,
        "columns_right": layout.width - layout.space.right,
    }


def _header_y(layout: NetworkLayout) -> float | None:
    """Return where the headers of single layers are; None if each is right above its column."""
    if layout.density == "crowded":
        return None
    staged = {"roomy": 34, "normal": 30}[layout.density]
    return (staged if layout.stages else 12) + FRAME_TITLE * layout.frame_levels


def _is_module(structure: Structure, path: str) -> bool:
    """Return whether a block is one module, which can be removed, not a range of a list's."""
    return any(f"{layer.name}.".startswith(f"{path}.") for layer in structure.layers)


def _block_header(
    structure: Structure, layout: NetworkLayout, index: int, shared: set[int]
) -> dict[str, Any]:
    unit, box = layout.units[index], layout.boxes[index]
    return {
        "path": unit.name,
        "is_module": _is_module(structure, unit.name),
        "label": _block_label(layout, index),
        "first": unit.first,
        "layers": len(unit.layers),
        "filters": sum(len(structure.layers[i].filter_ids) for i in unit.layers),
        "left": box.left,
        "right": box.right,
        "top": box.top,
        "bottom": box.bottom,
        "header_y": _header_y(layout),
        "lane": layout.ranks[index] in shared,
    }


def _block_label(layout: NetworkLayout, index: int) -> str:
    """Return the label of a closed block. Where there is no room, it is the end, which differs."""
    label = layout.labels[index]
    if layout.density == "roomy":
        return label
    if layout.density == "crowded":
        label = label.rsplit(".", 1)[-1]
    n_characters = max(2, int((_room(layout, index) - OPEN_BUTTON) / CHARACTER))
    return label if len(label) <= n_characters else f"…{label[1 - n_characters :]}"


def _room(layout: NetworkLayout, index: int) -> float:
    """Return the width available for the header of a unit, px."""
    box, rank = layout.boxes[index], layout.ranks[index]
    gaps = [
        max(other.left - box.right, box.left - other.right)
        for other, other_rank in zip(layout.boxes, layout.ranks, strict=True)
        if abs(other_rank - rank) == 1
    ]
    return box.right - box.left + min(gaps, default=layout.width)


def _layer_header(layer: LayerInfo, column: Column) -> dict[str, Any]:
    """Return what a header says of its layer, and where its column is."""
    return {
        "index": column.layer,
        "name": layer.name,
        "filters": len(layer.filter_ids),
        "kernel": "×".join(map(str, layer.kernel_size)),
        "center": column.center,
        "top": column.top,
        "frozen": len(layer.frozen_filters) == len(layer.filter_ids),
        "rate_factor": layer.learning_rate_factor,
        "refused": layer.edit_refusal,
    }
