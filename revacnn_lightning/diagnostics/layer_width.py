"""Whether a layer is wider or narrower than the network needs, by what its width would cost.

Two measures, which may both be large in one layer: prices are of the filters that it has, a growth
gain is of one that it lacks. Such a layer has filters to spare for what it lacks, so it is too
wide, not too narrow: reinitialize some filters in place of adding one.

too_wide
    The cheapest filters of the layer, taken one after the other until the sum of their prices
    exceeds `NEGLIGIBLE` of the loss, are at least `WIDE_SHARE` of all. A price is the measured
    change of the loss on removing that filter alone; negative prices count as 0, because images
    that were not measured need not confirm them. Prices of filters that back each other up do not
    add up: the plan of the removal measures them together. Confidence 0.6.

too_narrow
    The growth gain of the layer is at least `NARROW_RATIO` times the median of the known gains, of
    at least `MIN_LAYERS` layers, and it is not too wide. Confidence 0.5.

Range of the sum: 0 or more, in the unit of the loss. Cost: a sort of the prices. Source: the
measured prices of `runtime.removal_prices`; gains as in `protocol.growth` (Evci et al. 2022,
"GradMax", arXiv:2201.05125).
"""

from __future__ import annotations

import math

import numpy as np

from revacnn_lightning.diagnostics.verdicts import Verdict

__all__ = [
    "MIN_LAYERS",
    "NARROW_RATIO",
    "NEGLIGIBLE",
    "WIDE_SHARE",
    "judge_excess_width",
    "judge_narrowness",
]

NEGLIGIBLE = 0.01
WIDE_SHARE = 0.25
NARROW_RATIO = 2.0
MIN_LAYERS = 3


def judge_excess_width(
    layer: str, loss_changes: np.ndarray, loss: float, n_filters: int
) -> Verdict | None:
    """Return the verdict that a layer is too wide; None if it is not, or if that is unknown.

    Args:
        layer: the name of the layer.
        loss_changes: the measured price of each of its filters, NaN where unknown, (C,).
        loss: the loss on the same images, without a removal.
        n_filters: number of filters of the whole network; the worth is relative to it.
    """
    known = np.flatnonzero(np.isfinite(loss_changes))
    if not len(known) or not math.isfinite(loss) or loss <= 0:
        return None
    order = known[np.argsort(loss_changes[known], kind="stable")]
    sums = np.cumsum(np.maximum(loss_changes[order], 0))
    filters = order[: int((sums <= NEGLIGIBLE * loss).sum())]
    filters = filters[: len(loss_changes) - 1]  # a layer keeps one
    if len(filters) < WIDE_SHARE * len(loss_changes):
        return None
    total = float(sums[len(filters) - 1])
    evidence = (
        f"the {len(filters)} cheapest of {len(loss_changes)} cost {total:.1e} of a loss of "
        f"{loss:.3g} when each is removed alone"
    )
    worth = 0.6 * len(filters) / max(1, n_filters)
    chosen = tuple(sorted(filters.tolist()))
    return Verdict("too_wide", layer, evidence, 0.6, chosen, remedy="remove", worth=worth)


def judge_narrowness(
    layer: str, gain: float, all_gains: np.ndarray, n_filters: int
) -> Verdict | None:
    """Return the verdict that a layer is too narrow; None if it is not, or if that is unknown.

    Call it only for a layer that is not too wide.

    Args:
        layer: the name of the layer.
        gain: the growth gain of the layer.
        all_gains: the all_gains of all layers, NaN where unknown, (layers,).
        n_filters: number of filters of the whole network; the worth is relative to it.
    """
    known = all_gains[np.isfinite(all_gains)]
    if len(known) < MIN_LAYERS or not math.isfinite(gain):
        return None
    median = float(np.median(known))
    if median <= 0 or gain < NARROW_RATIO * median:
        return None
    evidence = (
        f"a new filter has a growth gain of {gain:.2g}, {gain / median:.1f} times the median of "
        f"{len(known)} layers"
    )
    return Verdict("too_narrow", layer, evidence, 0.5, remedy="add", worth=0.5 / max(1, n_filters))
