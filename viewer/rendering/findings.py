"""What a person should notice among the filters of an opened layer, as sentences to click on."""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from revacnn_lightning.diagnostics.degenerate import DegenerateKind

from ..embedding.projection import Projection
from ..runs.layer_details import LayerDetailState

__all__ = ["Finding", "collect_findings"]


class Finding(Struct, frozen=True):
    """Something noticed.

    Attributes:
        kind: "alike", "dead", "nonfinite" or "colour".
        text: "2 groups of near duplicates (12 filters)".
        advice: what may be done about it.
        groups: ids of the filters to select; where there are several groups, one after the other.
    """

    kind: str
    text: str
    advice: str
    groups: list[list[int]]


def collect_findings(
    layer: LayerDetailState, layout: Projection | None, ids: np.ndarray, silent: np.ndarray
) -> list[Finding]:
    """All that is to be noticed.

    Args:
        layout: of the coefficients.
        ids: of the filters that the layer has now, int64 (n,).
        silent: ids of those that have shown no activation for a while.
    """
    found = [_alike(layout, ids), _dead(layout, ids, silent), _broken(layout, ids)]
    found.append(_single(layer, ids))
    return [finding for finding in found if finding is not None]


def _alike(layout: Projection | None, ids: np.ndarray) -> Finding | None:
    if layout is None:
        return None
    numbers = range(int(layout.duplicate_group.max(initial=-1)) + 1)
    groups = [_present(layout.ids[layout.duplicate_group == number], ids) for number in numbers]
    groups = [group for group in groups if len(group) > 1]  # others have gone with an edit
    if not groups:
        return None
    if len(groups) == 1:
        text = f"{len(groups[0])} near duplicates"
    else:
        text = f"{len(groups)} groups of near duplicates ({sum(map(len, groups))} filters)"
    advice = "They compute nearly the same: merge them, or re-initialise all but one."
    return Finding("alike", text, advice, groups)


def _dead(layout: Projection | None, ids: np.ndarray, silent: np.ndarray) -> Finding | None:
    zero = [] if layout is None else layout.ids[layout.degenerate == DegenerateKind.DEAD].tolist()
    dead = _present(np.union1d(np.asarray(zero, np.int64), silent), ids)
    advice = "They are zero, or have not been active for a while: remove or re-initialise them."
    return Finding("dead", f"{len(dead)} dead", advice, [dead]) if dead else None


def _broken(layout: Projection | None, ids: np.ndarray) -> Finding | None:
    if layout is None:
        return None
    broken = _present(layout.ids[layout.degenerate == DegenerateKind.NONFINITE], ids)
    advice = "NaN or infinity among their coefficients: re-initialise them."
    return Finding("nonfinite", f"{len(broken)} not finite", advice, [broken]) if broken else None


def _single(layer: LayerDetailState, ids: np.ndarray) -> Finding | None:
    if len(layer.single_color) != len(layer.ids):
        return None
    single = _present(layer.ids[layer.single_color], ids)
    advice = "They see a colour, no edge and no texture."
    return Finding("colour", f"{len(single)} single-colour", advice, [single]) if single else None


def _present(wanted: np.ndarray, ids: np.ndarray) -> list[int]:
    """Those that the layer still has, in its order."""
    return [int(name) for name in ids[np.isin(ids, wanted)]]
