"""Problems among the filters of a layer, as short texts that select the affected filters."""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from revacnn_lightning.diagnostics.dead_filters import DEAD_BATCHES
from revacnn_lightning.diagnostics.degenerate import ComparisonExclusion
from revacnn_lightning.diagnostics.findings import FindingKind, describe_finding

from ..embedding.projection import Projection
from ..runs.layer_details import LayerDetailRecord

__all__ = ["Finding", "collect_findings"]


class Finding(Struct, frozen=True):
    """A problem and the filters it affects.

    Attributes:
        kind: the kind of problem.
        text: for example "2 groups of near duplicates (12 filters)".
        advice: what to do about it.
        groups: filter ids of each group; selecting the finding cycles through the groups.
    """

    kind: FindingKind
    text: str
    advice: str
    groups: list[list[int]]


def collect_findings(
    layer: LayerDetailRecord,
    projection: Projection | None,
    filter_ids: np.ndarray,
    dead_ids: list[int],
) -> list[Finding]:
    """Return all findings of a layer.

    Args:
        projection: the projection of the coefficients of the filters.
        filter_ids: the ids of the current filters of the layer, int64 (n,).
        dead_ids: the ids of the dead filters.
    """
    findings = [
        _find_near_duplicates(projection, filter_ids),
        _find_dead(filter_ids, dead_ids),
        _find_zero(projection, filter_ids),
        _find_nonfinite(projection, filter_ids),
        _find_single_color(layer, filter_ids),
    ]
    return [finding for finding in findings if finding is not None]


def _find_near_duplicates(projection: Projection | None, ids: np.ndarray) -> Finding | None:
    if projection is None:
        return None
    numbers = range(int(projection.duplicate_group.max(initial=-1)) + 1)
    groups = [
        _current(projection.ids[projection.duplicate_group == number], ids) for number in numbers
    ]
    groups = [group for group in groups if len(group) > 1]  # others were removed by an edit
    if not groups:
        return None
    if len(groups) == 1:
        text = describe_finding("near_duplicates", len(groups[0]))
    else:
        text = f"{len(groups)} groups of near duplicates ({sum(map(len, groups))} filters)"
    advice = (
        "These filters compute nearly the same: merge them, or reinitialize all of them but one."
    )
    return Finding("near_duplicates", text, advice, groups)


def _find_dead(ids: np.ndarray, dead: list[int]) -> Finding | None:
    group = _current(np.array(dead, np.int64), ids)
    advice = (
        f"These filters had no activation in the last {DEAD_BATCHES} batches: remove or "
        "reinitialize them."
    )
    return _finding("dead", advice, group)


def _find_zero(projection: Projection | None, ids: np.ndarray) -> Finding | None:
    group = _degenerate(projection, ComparisonExclusion.ZERO, ids)
    advice = "All coefficients of these filters are zero: reinitialize or remove them."
    return _finding("zero", advice, group)


def _find_nonfinite(projection: Projection | None, ids: np.ndarray) -> Finding | None:
    group = _degenerate(projection, ComparisonExclusion.NONFINITE, ids)
    advice = "The coefficients contain NaN or infinity: reinitialize these filters."
    return _finding("nonfinite", advice, group)


def _find_single_color(layer: LayerDetailRecord, ids: np.ndarray) -> Finding | None:
    if len(layer.single_color) != len(layer.ids):
        return None
    group = _current(layer.ids[layer.single_color], ids)
    advice = "These filters respond to a single color, not to edges or texture."
    return _finding("single_color", advice, group)


def _finding(kind: FindingKind, advice: str, group: list[int]) -> Finding | None:
    """Return a finding about one group of filters; None if it is empty."""
    text = describe_finding(kind, len(group))
    return Finding(kind, text, advice, [group]) if group else None


def _degenerate(
    projection: Projection | None, kind: ComparisonExclusion, ids: np.ndarray
) -> list[int]:
    """Return those of the layer's ids that the projection has found to be of a kind."""
    if projection is None:
        return []
    return _current(projection.ids[projection.degenerate == kind], ids)


def _current(wanted: np.ndarray, ids: np.ndarray) -> list[int]:
    """Return those of the wanted ids that the layer still has, in the layer's order."""
    return [int(id_) for id_ in ids[np.isin(ids, wanted)]]
