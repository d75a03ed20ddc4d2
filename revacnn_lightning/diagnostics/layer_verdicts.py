"""Verdicts on one layer that need its weights and activations, not only the published statistics.

They follow from `LayerMeasures`, which a run takes while somebody looks (`InspectEvidence`). The
rules beside those of `diagnostics.verdicts`:

provably_dead
    Certified by `provably_dead`: zero for every input, and nothing can change that. Confidence 1.
twins
    R² of the activations of any two of these units is at least `twins.TWIN` (`twins.find_twins`).
    Confidence 0.9: on other images they may differ. The remedy is to merge them into the strongest:
    their outgoing weights are added, times how strong each is. By how much that changes the loss is
    measured where possible.
degenerate
    The published pattern: the layer has left its start (‖w - w₀‖ / ‖w₀‖ of its median filter is at
    least `LEFT_START`), its silhouette is at least `CLUSTERED`, and its effective rank is at most
    `LOW_RANK` of that of random filters. Confidence 0.5: in the study that this package knows of,
    silhouette correlates with accuracy by -0.33 to -0.62 among networks that have moved, and not at
    all over all networks. Single colors are stated as evidence, and change nothing.
    A layer that has not left its start, or whose start is unknown, cannot be judged: that is a
    verdict as well, with ``is_known`` False.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from revacnn_lightning.diagnostics.twins import TWIN
from revacnn_lightning.diagnostics.verdicts import Remedy, Verdict

__all__ = [
    "CLUSTERED",
    "LEFT_START",
    "LOW_RANK",
    "LayerMeasures",
    "TwinGroup",
    "judge_layer",
]

LEFT_START = 0.2
CLUSTERED = 0.5
LOW_RANK = 0.6
NAN = float("nan")


@dataclass(frozen=True)
class TwinGroup:
    """Filters that are twins of each other, the strongest first.

    ``min_r_squared`` is the least R² of them, ``scales`` how strong each is relative to the first.
    ``merge_loss_change`` is the change of the loss if they are merged, ``merge_loss_error`` its
    standard error; NaN if it is unknown.
    """

    filters: Sequence[int]
    min_r_squared: float
    scales: Sequence[float]
    merge_loss_change: float = NAN
    merge_loss_error: float = NAN


@dataclass(frozen=True)
class LayerMeasures:
    """The measures from which verdicts on a layer of ``width`` filters follow; NaN is unknown.

    ``moved`` is ‖w - w₀‖ / ‖w₀‖ since the first batch, of the median filter.
    """

    width: int
    provably_dead: Sequence[int] = ()
    twins: Sequence[TwinGroup] = ()
    samples: int = 0  # activations of each unit that the twins follow from
    moved: float = NAN
    silhouette: float = NAN
    hopkins: float = NAN
    effective_rank: float = NAN
    random_silhouette: float = NAN
    random_effective_rank: float = NAN
    redundant: Sequence[int] = field(default=())  # explained by the others
    busiest: int = -1  # the most active filter that the others do not explain; -1: unknown
    single_color: int = -1  # how many filters; -1: the layer reads no colors


def judge_layer(layer: str, measures: LayerMeasures, n_filters: int) -> list[Verdict]:
    """Return the verdicts on a layer.

    Args:
        layer: the name of the layer.
        measures: what was measured of it.
        n_filters: number of filters of the whole network; the worth is relative to it.
    """
    found = [_provably_dead(layer, measures, n_filters), *_twins(layer, measures, n_filters)]
    found.append(_clusters(layer, measures, n_filters))
    return [verdict for verdict in found if verdict is not None]


def _provably_dead(layer: str, measures: LayerMeasures, n_filters: int) -> Verdict | None:
    filters = tuple(measures.provably_dead)
    if not filters:
        return None
    evidence = (
        f"{len(filters)} of {measures.width} are zero for every input: their weights, gradients "
        "and momentum leave no way back"
    )
    worth = len(filters) / max(1, n_filters)
    return Verdict(
        "provably_dead", layer, evidence, 1.0, filters, remedy="remove", worth=worth,
        alternatives=("reinitialize",),
    )  # fmt: skip


def _twins(layer: str, measures: LayerMeasures, n_filters: int) -> list[Verdict]:
    verdicts = []
    for group in measures.twins:
        filters = tuple(group.filters)
        evidence = (
            f"R² of their activations is at least {group.min_r_squared:.3f} on {measures.samples} "
            f"positions; the weakest is {min(group.scales):.2g} times as strong as the strongest"
        )
        if math.isfinite(group.merge_loss_change):
            evidence += f"; merged, the loss changes by {group.merge_loss_change:+.2g}"
            if math.isfinite(group.merge_loss_error):
                evidence += f" ± {group.merge_loss_error:.1g}"
        worth = 0.9 * (len(filters) - 1) / max(1, n_filters)
        verdicts.append(
            Verdict("twins", layer, evidence, 0.9, filters, remedy="merge", worth=worth)
        )
    return verdicts


def _clusters(layer: str, measures: LayerMeasures, n_filters: int) -> Verdict | None:
    if math.isnan(measures.silhouette):
        return None
    if math.isnan(measures.moved):
        reason = "how far it has moved since the start of the run is unknown"
        return Verdict("degenerate", layer, reason, 0.0, is_known=False)
    if measures.moved < LEFT_START:
        reason = (
            f"its filters have moved by {measures.moved:.0%} since the start of the run: their "
            f"pattern is judged from {LEFT_START:.0%} on"
        )
        return Verdict("degenerate", layer, reason, 0.0, is_known=False)
    rank = measures.effective_rank / measures.random_effective_rank
    if measures.silhouette < CLUSTERED or rank > LOW_RANK:
        return None
    evidence = (
        f"its filters form clusters: silhouette {measures.silhouette:.2f} (random filters "
        f"{measures.random_silhouette:.2f}), effective rank {rank:.0%} of that of random filters, "
        f"Hopkins {measures.hopkins:.2f}, moved by {measures.moved:.0%} since the start"
    )
    if measures.single_color > 0:
        evidence += f"; {measures.single_color} respond to a single color"
    redundant = tuple(measures.redundant)
    if redundant:
        evidence += f"; {len(redundant)} have an R² of at least {TWIN} by the others"
    remedies: list[Remedy] = ["reinitialize"] if redundant else []
    remedies += ["lower_rate"] if measures.busiest < 0 else ["lower_rate", "split"]
    return Verdict(
        "degenerate", layer, evidence, 0.5, redundant,
        remedy=remedies[0],
        worth=0.5 * measures.width / max(1, n_filters),
        alternatives=tuple(remedies[1:]),
        busiest=() if measures.busiest < 0 else (measures.busiest,),
    )  # fmt: skip
