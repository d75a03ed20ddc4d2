"""Verdicts on the layers and filters of a network in training: what is wrong, and what to do.

Each is a pure function of the statistics of the last recorded batches. Notation: a layer has C
filters; ``activation``, ``gradient`` and ``update_ratio`` are those of
`revacnn_lightning.telemetry.statistics`. A verdict says what was seen, in figures, and how certain
it is: 1 for what follows from the definition, less for what is a rule of thumb. What is not
known yet is a verdict, too. The cost of each is a mean over the batches of its window.

dead
    Silent in the last 20 batches (`dead_filters`). Confidence 0.9: other inputs may revive them.
dormant
    E|a| of the filter divided by the mean E|a| of the filters of its layer, 0 to C, is at most
    `DORMANT_SHARE`, and the filter is not dead (Sokar et al. 2023, "The Dormant Neuron Phenomenon
    in Deep Reinforcement Learning", arXiv:2302.12902). E is the mean over the window.
untrained
    Σ ‖Δw‖ / ‖w‖ over all optimizer steps is below `MOVED`: the filters of the layer have not moved
    away from their random start by more than this share, whatever the direction of the steps. An
    upper bound, so confidence 1 if every step was recorded. Patterns among the filters of such a
    layer say nothing about the training.
restless
    The median update ratio over filters and batches exceeds `RESTLESS`, while about 1e-3 is usual
    (Karpathy, CS231n). After a warmup, the layer's steps are too large to settle.
converged
    The median update ratio has fallen below `CONVERGED` of its highest level in the run. A layer
    that has never moved, such as a frozen one, has not converged. If an edit scales the learning
    rate of the layer, it scales that level, too.
vanishing, exploding
    The mean gradient of the first layer divided by that of the last one is below 1 / `DEPTH_RATIO`,
    or above `DEPTH_RATIO`. It is that of the median batch. The norm at which to clip an exploding
    gradient is defined in `diagnostics.clip_norm`.
provably_dead, twins, degenerate, too_wide, too_narrow
    Defined in `diagnostics.layer_verdicts` and `diagnostics.layer_width`.
nonfinite
    A statistic is NaN or infinite that was measured. It began in the first layer, in forward order,
    whose activation is not finite; if all are finite, in the last layer whose gradient is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

__all__ = [
    "DORMANT_SHARE",
    "MIN_BATCHES",
    "NOTHING_WATCHED",
    "WINDOW",
    "Remedy",
    "Verdict",
    "VerdictKind",
    "dormancy_scores",
    "judge_gradient_flow",
    "judge_nonfinite_origin",
    "judge_weight_updates",
    "mean_magnitudes",
]

VerdictKind = Literal[
    "dead", "dormant", "untrained", "restless", "converged", "vanishing", "exploding", "nonfinite",
    "provably_dead", "twins", "degenerate", "too_wide", "too_narrow",
]  # fmt: skip
# What an edit can do: "remove", "merge" and "reinitialize" (with outgoing weights of zero) the
# filters, "freeze" the layer or "lower_rate", the layer's learning rate, "add" a filter to it,
# "split" its busiest one, "undo" the last edit; "clip_gradient" is a setting of the training.
Remedy = Literal[
    "remove", "merge", "reinitialize", "freeze", "add", "split", "lower_rate", "clip_gradient",
    "undo", "",
]  # fmt: skip

NOTHING_WATCHED = (
    'no convolution and no hidden linear layer is watched; layers="all" watches all linear layers'
)

WINDOW = 50  # recorded batches
MIN_BATCHES = 20  # fewer say nothing
DORMANT_SHARE = 0.025
MOVED = 0.2
RESTLESS = 0.03
CONVERGED = 0.01
DEPTH_RATIO = 1e4


@dataclass(frozen=True)
class Verdict:
    """A verdict on a layer, or on some of its filters.

    Attributes:
        kind: such as ``"dormant"``; the module `diagnostics.verdicts` defines each of them.
        layer: the name of the layer; "" for the network.
        filters: indices of filters; () for the layer as a whole.
        evidence: what was seen, in words and numbers.
        confidence: from 0 to 1.
        is_known: False: it is not known yet, for the reason in ``evidence``.
        remedy: what helps; "" if nothing is to be done.
        worth: what acting on it is worth, to order verdicts by: the share of the network's filters
            that are affected times the confidence, and above 1 for what ruins the training.
        alternatives: other remedies, with the same filters.
        busiest: the filters to split, if that is an alternative.
        clip_norm: the norm at which to clip the gradient, if that is an alternative.
        clip_note: where this number comes from.
    """

    kind: VerdictKind
    layer: str
    evidence: str
    confidence: float
    filters: tuple[int, ...] = ()
    is_known: bool = True
    remedy: Remedy = ""
    worth: float = field(default=0.0)
    alternatives: tuple[Remedy, ...] = ()
    busiest: tuple[int, ...] = ()
    clip_norm: float = 0.0
    clip_note: str = ""


def mean_magnitudes(activations: np.ndarray) -> np.ndarray:
    """Return E|a| of each filter over the batches in which it was measured; NaN if in none.

    Args:
        activations: the activations of the filters, (batches, C).
    """
    measured = np.isfinite(activations)
    total = np.abs(activations).sum(0, dtype=np.float64, where=measured)
    with np.errstate(invalid="ignore", divide="ignore"):
        means: np.ndarray = total / measured.sum(0)
    return means


def dormancy_scores(means: np.ndarray) -> np.ndarray:
    """Return the dormancy score of each filter: E|a| relative to the mean of its layer, (C,).

    It ranges from 0 to C.

    NaN where it was not measured, or if the whole layer is silent.

    Args:
        means: `mean_magnitudes` of the filters of one layer, (C,).
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        score: np.ndarray = means / np.nanmean(means) if np.isfinite(means).any() else means
    return score


def judge_weight_updates(
    layer: str, update_level: float, total_change: float, peak_level: float, *, is_complete: bool
) -> Verdict | None:
    """Return the verdict that a layer is untrained, restless or converged; None if it is none.

    Args:
        layer: the name of the layer.
        update_level: median update ratio of its filters in the last batches.
        total_change: Σ ‖Δw‖ / ‖w‖ since the start, of its median filter.
        peak_level: the highest median update ratio of any window so far.
        is_complete: whether ``total_change`` counts all steps since the start.
    """
    if total_change < MOVED and is_complete:
        evidence = f"has moved at most {total_change:.0%} from its random start"
        return Verdict("untrained", layer, evidence, 1.0)
    if update_level > RESTLESS:
        evidence = f"each step changes its weights by {update_level:.1%}, where 0.1% is usual"
        return Verdict("restless", layer, evidence, 0.6, remedy="lower_rate")
    if peak_level > 0 and update_level <= CONVERGED * peak_level:
        share = f"{update_level / peak_level:.1%} of the peak"
        evidence = f"each step changes its weights by {update_level:.1e}, {share}"
        return Verdict("converged", layer, evidence, 0.6, remedy="freeze")
    return None


def judge_gradient_flow(layers: Sequence[str], gradients: np.ndarray) -> Verdict | None:
    """Return the verdict that gradients vanish or explode on the way to the first layer, or None.

    Args:
        layers: names, in forward order.
        gradients: the mean gradient of each layer, (batches, layers).
    """
    columns = [column[np.isfinite(column) & (column > 0)] for column in gradients.T]
    median = np.array([np.median(one) if len(one) else np.nan for one in columns])
    reached = np.flatnonzero(np.isfinite(median))
    if len(reached) < 2:
        return None
    first, last = reached[0], reached[-1]
    ratio = float(median[first] / median[last])
    evidence = f"the gradient of {layers[first]} is {ratio:.1e} times that of {layers[last]}"
    if ratio < 1 / DEPTH_RATIO:
        return Verdict("vanishing", layers[first], evidence, 0.7, worth=1.0)
    if ratio > DEPTH_RATIO:
        return Verdict(
            "exploding", layers[first], evidence, 0.7, remedy="lower_rate", worth=1.5,
            alternatives=("clip_gradient", "undo"),
        )  # fmt: skip
    return None


def judge_nonfinite_origin(
    layers: Sequence[str], activations: Sequence[np.ndarray], gradients: Sequence[np.ndarray]
) -> Verdict | None:
    """Return the verdict on the layer where NaN or infinity began in a batch; None without.

    Args:
        layers: names, in forward order.
        activations: for each layer, the activations that were measured, (C,).
        gradients: the same for the gradients.
    """
    for layer, values in zip(layers, activations, strict=True):
        if not np.isfinite(values).all():
            return _nonfinite(layer, values, "activation")
    for layer, values in zip(reversed(layers), reversed(gradients), strict=True):
        if not np.isfinite(values).all():
            return _nonfinite(layer, values, "gradient")
    return None


def _nonfinite(layer: str, values: np.ndarray, what: str) -> Verdict:
    filters = tuple(np.flatnonzero(~np.isfinite(values)).tolist())
    where = "first in forward order" if what == "activation" else "first in backward order"
    evidence = f"the {what} of {len(filters)} filters is not finite, {where}"
    return Verdict("nonfinite", layer, evidence, 1.0, filters, remedy="undo", worth=2.0)
