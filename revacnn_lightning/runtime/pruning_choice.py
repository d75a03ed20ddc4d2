"""Which filters a round of pruning to a budget removes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from revacnn_lightning.errors import RevacnnError
from revacnn_lightning.protocol.requests import RemoveFilters
from revacnn_lightning.runtime.filter_prices import FilterKey
from revacnn_lightning.runtime.removal_prices import LossChangeMeasurer
from revacnn_lightning.steering import Editor, EditPlan, ForwardProbe

__all__ = [
    "LayerRemoval",
    "Measure",
    "RemovalCandidate",
    "find_removal_candidates",
    "group_candidates_by_layer",
    "size_before_and_after_edit",
    "take_cheapest",
]

MEASURED_EACH = 3  # filters that are measured, for each that is removed
MIN_MEASURED = 8
SECONDS_EACH = 0.01  # of the forwards of a measurement

Measure = Literal["macs", "parameters"]


@dataclass(frozen=True)
class RemovalCandidate:
    """A filter that could be removed, with all that is removed together with it.

    Attributes:
        key: layer and index of the filter.
        removed: all filters that its removal removes.
        size: the present size of the network.
        saved: by how much the network would be smaller without the filter.
        change: the predicted change of the loss; NaN if it was not measured.
    """

    key: FilterKey
    removed: frozenset[tuple[str, int]]
    size: int
    saved: int
    change: float


@dataclass(frozen=True)
class LayerRemoval:
    """Filters of one layer that a round removes, by their permanent ids."""

    layer: str
    ids: list[int]
    cost: float  # sum of the predicted changes


def size_before_and_after_edit(plan: EditPlan, size_measure: Measure) -> tuple[int, int]:
    """Return the size of the network before and after an edit."""
    if size_measure == "macs":
        return plan.macs_before, plan.macs_after
    return plan.parameters_before, plan.parameters_after


def find_removal_candidates(
    ranking: Sequence[FilterKey],
    layers: Sequence[str],
    size_measure: Measure,
    count: int,
    weights_key: object,
    editor: Editor,
    probe: ForwardProbe,
    prices: LossChangeMeasurer,
) -> list[RemovalCandidate]:
    """Return more of the cheapest filters than ``count``, cheapest first.

    They are the first ones of the ranking that can be removed, in the order of the measured change
    of the loss. If one of them cannot be measured, the ranking decides. Cost: the plan and the
    forwards of each.

    Args:
        ranking: all filters, cheapest first, by an estimate.
        layers: the names of all layers.
        size_measure: what the size of the network counts.
        count: how many filters are to be removed.
        weights_key: a value that is equal as long as the weights have not changed.
        editor: makes the plans.
        probe: runs forwards of the network to trace it.
        prices: measures the changes of the loss.
    """
    limit = max(MIN_MEASURED, MEASURED_EACH * count)
    found: list[RemovalCandidate] = []
    covered: set[tuple[str, int]] = set()
    for layer, index in ranking:
        if len(found) == limit:
            break
        if (layers[layer], index) in covered:
            continue
        try:
            plan = editor.plan(RemoveFilters(layers[layer], [index]), probe)
        except RevacnnError:  # this filter cannot be removed
            continue
        before, after = size_before_and_after_edit(plan, size_measure)
        removed = frozenset((one.layer, i) for one in plan.filter_changes for i in one.filters)
        covered |= removed
        if plan.confirmation or after >= before:
            continue
        price = prices.measure(plan, weights_key, SECONDS_EACH)
        change = math.nan if isinstance(price, str) else price.change
        found.append(RemovalCandidate((layer, index), removed, before, before - after, change))
    if any(math.isnan(one.change) for one in found):
        return found
    return sorted(found, key=lambda one: one.change)


def take_cheapest(
    candidates: Sequence[RemovalCandidate], widths: dict[str, int], max_count: int, target_size: int
) -> list[RemovalCandidate]:
    """Return the first candidates, as many as are needed to reach the target size.

    What each candidate saves is added up, as if the others stayed. Each layer keeps a filter.

    Args:
        candidates: cheapest first.
        widths: the number of filters by layer.
        max_count: the largest number of candidates to take.
        target_size: the size of the network to reach.
    """
    left = dict(widths)
    chosen: list[RemovalCandidate] = []
    size = candidates[0].size if candidates else 0
    for one in candidates:
        if len(chosen) == max_count or size <= target_size:
            break
        removed: dict[str, int] = {}
        for layer, _ in one.removed:
            removed[layer] = removed.get(layer, 0) + 1
        if any(left.get(layer, 0) - n < 1 for layer, n in removed.items() if layer in left):
            continue
        for layer, n in removed.items():
            if layer in left:
                left[layer] -= n
        chosen.append(one)
        size -= one.saved
    return chosen


def group_candidates_by_layer(
    chosen_candidates: Sequence[RemovalCandidate], layers: Sequence[str], editor: Editor
) -> list[LayerRemoval]:
    """Return one removal for each layer, in the order of its first candidate.

    Args:
        chosen_candidates: the candidates.
        layers: the names of all layers.
        editor: knows the ids of the filters.
    """
    removals: dict[str, LayerRemoval] = {}
    for one in chosen_candidates:
        layer, index = layers[one.key[0]], one.key[1]
        known = removals.get(layer, LayerRemoval(layer, [], 0.0))
        id_ = editor.filter_ids(layer)[index]
        removals[layer] = LayerRemoval(layer, [*known.ids, id_], known.cost + one.change)
    return list(removals.values())
