"""Whether a layer is wider than the network needs: what removing its cheapest filters would cost.

too_wide
    The cheapest filters of the layer, taken one after the other until the sum of their prices
    exceeds `NEGLIGIBLE` of the loss, are at least `WIDE_SHARE` of all. A price is the measured
    change of the loss on removing that filter alone; negative prices count as 0, because images
    that were not measured need not confirm them. Prices of filters that back each other up do not
    add up: the plan of the removal measures them together. Confidence 0.6.

Range of the sum: 0 or more, in the unit of the loss. Cost: a sort of the prices. Source: the
measured prices of `runtime.removal_prices`.
"""

from __future__ import annotations

import math

import numpy as np

from revacnn_lightning.diagnostics.verdicts import Verdict

__all__ = ["NEGLIGIBLE", "WIDE_SHARE", "judge_width"]

NEGLIGIBLE = 0.01
WIDE_SHARE = 0.25


def judge_width(layer: str, changes: np.ndarray, loss: float, n_filters: int) -> Verdict | None:
    """Return whether a layer is too wide; None if it is not, or that is not known.

    Args:
        layer: its name.
        changes: the measured price of each of its filters, NaN where unknown, (C,).
        loss: on the same images, before.
        n_filters: of the whole network, to which the worth of a verdict relates.
    """
    known = np.flatnonzero(np.isfinite(changes))
    if not len(known) or not math.isfinite(loss) or loss <= 0:
        return None
    order = known[np.argsort(changes[known], kind="stable")]
    sums = np.cumsum(np.maximum(changes[order], 0))
    filters = order[: int((sums <= NEGLIGIBLE * loss).sum())]
    filters = filters[: len(changes) - 1]  # a layer keeps one
    if len(filters) < WIDE_SHARE * len(changes):
        return None
    total = float(sums[len(filters) - 1])
    evidence = (
        f"the {len(filters)} cheapest of {len(changes)} cost {total:.1e} of a loss of {loss:.3g} "
        "when each is removed alone"
    )
    worth = 0.6 * len(filters) / max(1, n_filters)
    chosen = tuple(sorted(filters.tolist()))
    return Verdict("too_wide", layer, evidence, 0.6, chosen, remedy="remove", worth=worth)
