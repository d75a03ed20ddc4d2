"""The data of the network view: from layout and numbers to arrays, nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from revacnn_lightning.protocol.messages import Planned, PlanSummary, Structure

from ..layout import InputOutputPlacement, NetworkLayout, NodeState
from ..layout.paths import concatenate_paths
from ..rendering.formatting import format_count
from ..rendering.prices import describe_plan_loss_change
from ..runs.run_state import RunState
from ..tab.staged_change import StagedChange
from .shared_results import compute_once

__all__ = [
    "arc_data",
    "coupled_nodes",
    "coupling_text",
    "empty_arc_data",
    "empty_node_data",
    "empty_path_data",
    "node_data",
    "node_means",
    "node_of_filter",
    "node_states",
    "nodes_of_filters",
    "normalize_gradients",
    "path_and_arc_thickness",
    "path_data",
    "paths_from",
    "relative_activation",
    "removal_preview_text",
]

Data = dict[str, Any]

# Gradients spread over orders of magnitude; a few extremes must not flatten all the others.
ROBUST = (3.0, 99.3)
PATH_PLACES = ("x", "y", "x1", "y1", "width")
ARC_PLACES = ("x0", "y0", "a", "level", "b", "x1", "y1", "width")
BUNDLE_EXPONENT = 0.6
ID_BITS = 2**32  # a node's key holds its layer's number above its first filter's id


def node_data(structure: Structure, layout: NetworkLayout, layer_keys: Mapping[str, int]) -> Data:
    """Return the position, the layer and the filters of each node, one row each.

    ``layer_keys`` has a number for each layer. A layer keeps its number, so its nodes keep their
    ``key``.
    """
    columns = layout.columns
    sizes = [column.n for column in columns]

    def spread(values: Iterable[float], kind: type = np.float32) -> np.ndarray:
        return np.repeat(np.asarray(list(values), kind), sizes)

    layers = [structure.layers[column.layer] for column in columns]
    ids = [
        np.asarray(layer.filter_ids, np.float64)[column.first[:-1]]
        for layer, column in zip(layers, columns, strict=True)
    ]
    key = spread((layer_keys[layer.name] for layer in layers), np.float64) * ID_BITS
    key += np.concatenate(ids)
    return {
        "x": np.concatenate([column.x for column in columns]).astype(np.float32),
        "y": np.concatenate([column.y for column in columns]).astype(np.float32),
        "size": spread(column.size for column in columns),
        "bar": spread(column.bar for column in columns),
        "phase": ((key * 0.6180339887) % 1 * 2 * np.pi).astype(np.float32),
        "key": key,
        "layer": spread((column.layer for column in columns), np.int32),
        "first": np.concatenate([column.first[:-1] for column in columns]).astype(np.int32),
        "last": np.concatenate([column.first[1:] - 1 for column in columns]).astype(np.int32),
    }


def empty_node_data() -> Data:
    """Return `node_data` of a network without nodes."""
    names = ("x", "y", "size", "bar", "phase", "key", "layer", "first", "last")
    return {name: np.zeros(0, np.float32) for name in names}


def path_data(layout: NetworkLayout, input_output: InputOutputPlacement) -> Data:
    """Return the positions of the paths, one row each; input and outputs come last."""
    paths = concatenate_paths([layout.paths, input_output.paths])
    places = {name: getattr(paths, name).astype(np.float32) for name in PATH_PLACES}
    return {
        **places,
        "first": paths.first.astype(np.int32),
        "last": paths.last.astype(np.int32) - 1,
    }


def empty_path_data() -> Data:
    """Return `path_data` of a network without paths."""
    return {name: np.zeros(0, np.float32) for name in (*PATH_PLACES, "first", "last")}


def node_states(
    state: RunState,
    structure: Structure,
    staged_changes: Iterable[StagedChange],
    first_filters: np.ndarray,
    dead_mask: np.ndarray,
) -> np.ndarray:
    """Return the `NodeState` of each node, uint8 (nodes,).

    A node of several filters is dead or frozen only if all of them are.

    Args:
        first_filters: the index of the first filter of each node, (nodes,).
        dead_mask: which filters are dead, bool (filters,).
    """
    staged, coupled = _staged_filters(state, structure, staged_changes)
    frozen = compute_once(
        state, ("frozen", state.structure_revision), lambda: _frozen_filters(state, structure)
    )
    states = np.zeros(len(first_filters), np.uint8)
    for mask, combine, node_state in (
        (dead_mask, np.logical_and, NodeState.DEAD),
        (frozen, np.logical_and, NodeState.FROZEN),
        (state.new_filter_mask(), np.logical_or, NodeState.NEW),
        (coupled, np.logical_or, NodeState.COUPLED),
        (staged, np.logical_or, NodeState.STAGED),
    ):
        if mask.any():  # most of them are nearly always empty
            states[combine.reduceat(mask, first_filters)] = node_state
    return states


def _frozen_filters(state: RunState, structure: Structure) -> np.ndarray:
    frozen = np.zeros(state.n_filters, bool)
    for layer, offset in zip(structure.layers, state.offsets[:-1], strict=True):
        if layer.frozen_filters:
            frozen[int(offset) + np.asarray(layer.frozen_filters)] = True
    return frozen


def _staged_filters(
    state: RunState, structure: Structure, rows: Iterable[StagedChange]
) -> tuple[np.ndarray, np.ndarray]:
    """Return masks of the filters staged for removal, and of those coupled with them."""
    staged, coupled = np.zeros(state.n_filters, bool), np.zeros(state.n_filters, bool)
    for row in rows:
        at = state.layer_index(row.layer)
        if row.kind == "remove" and at is not None:
            wanted = np.isin(structure.layers[at].filter_ids, row.ids)
            staged[int(state.offsets[at]) + np.flatnonzero(wanted)] = True
        for part in row.plan.plan.filter_changes if isinstance(row.plan, Planned) else ():
            at = state.layer_index(part.layer)
            if at is not None:
                places = int(state.offsets[at]) + np.asarray(part.filters, np.int64)
                coupled[places[places < state.offsets[at + 1]]] = True
    return staged, coupled


def normalize_gradients(gradient: np.ndarray) -> np.ndarray:
    """Return gradients on a logarithmic scale from 0 to 1, between percentiles without outliers."""
    positive = gradient[(gradient > 0) & np.isfinite(gradient)]
    gradient = np.nan_to_num(gradient, nan=0.0, posinf=np.finfo(np.float32).max)
    if not len(positive):
        return np.zeros(len(gradient), np.float32)
    low, high = np.log(_percentiles(positive, ROBUST))
    logs = np.log(np.maximum(gradient, 1e-38))
    scale = (logs - low) / (high - low) if high > low else np.full(len(gradient), 0.5)
    return np.where(gradient > 0, np.clip(scale, 0, 1) ** 1.5, 0).astype(np.float32)


def _percentiles(values: np.ndarray, percents: Iterable[float]) -> list[float]:
    """Return what ``np.percentile`` does, whose overhead is several times the work."""
    ordered = np.sort(values)
    found = []
    for percent in percents:
        below, share = divmod(percent / 100 * (len(ordered) - 1), 1)
        pair = ordered[int(below) : int(below) + 2].astype(np.float64)
        found.append(float(pair[0] + share * (pair[-1] - pair[0])))
    return found


def relative_activation(activation: np.ndarray, node_offsets: np.ndarray) -> np.ndarray:
    """Return the activation of each node relative to the 99th percentile of its layer, 0 to 1.

    Ratios are clipped to 1 and raised to the power 0.8, which spreads small ones. In a layer whose
    percentile is negative, such as one before a tanh, the magnitudes count instead.

    ``node_offsets`` is the index of the first node of each layer, (layers + 1,).
    """
    activation = np.nan_to_num(activation, nan=0.0, posinf=0.0, neginf=0.0)
    counts = np.diff(node_offsets)
    layer = np.repeat(np.arange(len(counts)), counts)
    place = node_offsets[:-1] + (0.99 * (counts - 1)).round().astype(int)
    top = activation[np.lexsort((activation, layer))][place][layer]
    if top.min(initial=0.0) < 0:
        activation = np.where(top < 0, -activation, activation)
        top = activation[np.lexsort((activation, layer))][place][layer]
    scaled = np.divide(activation, top, out=np.zeros(len(activation)), where=top > 0)
    return (np.clip(scaled, 0, 1) ** 0.8).astype(np.float32)


def node_means(values: np.ndarray, first_filters: np.ndarray) -> np.ndarray:
    """Return the mean of the values of the filters of each node, (nodes,)."""
    if len(first_filters) == len(values):
        return values
    counts = np.diff(np.append(first_filters, len(values)))
    return (np.add.reduceat(values, first_filters) / counts).astype(np.float32)


def path_and_arc_thickness(
    layout: NetworkLayout,
    input_output: InputOutputPlacement,
    node_activations: np.ndarray,
    channel_weights: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return how thick each path and each arc is, 0 to 1, from the activations of its nodes.

    A mean varies less than its nodes, and would leave all bundles thin without `BUNDLE_EXPONENT`.

    Args:
        node_activations: the relative activation of each node, (nodes,).
        channel_weights: the weight of each node of input channels.
    """
    sums = np.append(0.0, np.cumsum(node_activations, dtype=np.float64))
    weights = []
    for lines in (layout.paths, input_output.paths, layout.arcs):
        n = np.maximum(1, lines.last - lines.first)
        mean = np.clip((sums[lines.last] - sums[lines.first]) / n, 0, 1)
        weights.append(np.where(n > 1, mean**BUNDLE_EXPONENT, mean).astype(np.float32))
    paths, outer_paths, arcs = weights
    outer_paths[: len(input_output.channels)] = channel_weights[input_output.channels]
    return np.concatenate([paths, outer_paths]), arcs


def paths_from(layout: NetworkLayout, nodes: np.ndarray) -> np.ndarray:
    """Return the indices of the paths that begin at one of these nodes."""
    if not len(nodes) or not len(layout.paths.first):
        return np.zeros(0, np.int64)
    place = np.searchsorted(nodes, layout.paths.first)
    ends = np.append(nodes, np.iinfo(np.int64).max)
    return np.flatnonzero(ends[place] < layout.paths.last)


def nodes_of_filters(layout: NetworkLayout, layer: int, filters: Sequence[int]) -> list[int]:
    """Return the indices of the nodes that show these filters of a layer, each once."""
    column, offset = layout.columns[layer], int(layout.node_offsets[layer])
    inside = np.searchsorted(column.first, np.asarray(filters, np.int64), side="right") - 1
    return [offset + int(i) for i in np.unique(np.minimum(inside, column.n - 1))]


def node_of_filter(layout: NetworkLayout, layer: int, filter_index: int) -> int:
    """Return the index of the node that shows a filter."""
    return nodes_of_filters(layout, layer, [filter_index])[0]


def coupled_nodes(state: RunState, layout: NetworkLayout, plan: PlanSummary | None) -> list[int]:
    """Return the nodes of the filters that a plan removes together; [] for a single filter."""
    nodes: list[int] = []
    for part in plan.filter_changes if plan is not None else ():
        layer = state.layer_index(part.layer)
        if layer is not None and layer < len(layout.columns):
            column, offset = layout.columns[layer], int(layout.node_offsets[layer])
            inside = np.searchsorted(column.first, part.filters, side="right") - 1
            nodes += [offset + int(i) for i in inside if 0 <= i < column.n]
    return nodes if len(nodes) > 1 else []


def coupling_text(plan: PlanSummary | None, layer_name: str) -> str:
    """Return the names of coupled layers in words: ``coupled with conv1, layer1.1.conv2``."""
    changed = [] if plan is None else [part.layer for part in plan.filter_changes]
    others = [name for name in changed if name != layer_name]
    if not others:
        return ""
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    return f"coupled with {', '.join(others[:3])}{more}"


def removal_preview_text(plan: PlanSummary | None, layer_name: str) -> str:
    """Return in words the price of removing a filter, and the layers coupled with it."""
    price = describe_plan_loss_change(plan)
    if plan is not None and plan.price is not None:
        price += f", measured at batch {format_count(plan.price.step)}"
    parts = [f"removal: {price}" if price else "", coupling_text(plan, layer_name)]
    return " · ".join(filter(None, parts))


def arc_data(layout: NetworkLayout) -> Data:
    """Return the positions of the arcs: connections that skip layers, below the columns."""
    places = {name: getattr(layout.arcs, name).astype(np.float32) for name in ARC_PLACES}
    return {**places, "is_sum": layout.arcs.is_sum.astype(np.uint8)}


def empty_arc_data() -> Data:
    """Return `arc_data` of a network without arcs."""
    return {name: np.zeros(0, np.float32) for name in (*ARC_PLACES, "is_sum")}
