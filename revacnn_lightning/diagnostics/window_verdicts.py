"""The verdicts that follow from the statistics of the last batches of a run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from revacnn_lightning.diagnostics.clip_norm import norm_bounds, propose_clip_norm, usual_norm
from revacnn_lightning.diagnostics.dead_filters import DEAD_BATCHES
from revacnn_lightning.diagnostics.verdicts import (
    DORMANT_SHARE,
    MIN_BATCHES,
    NOTHING_WATCHED,
    Verdict,
    dormancy_scores,
    judge_gradient_flow,
    judge_weight_updates,
    mean_magnitudes,
)

__all__ = ["FrozenWindow", "Judgment", "Rows"]

MEDIAN_FILTERS = 64  # of a wide layer, evenly spaced, whose median is about that of all

Rows = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Judgment:
    """The verdicts on a window, and the levels that later verdicts compare with.

    Attributes:
        verdicts: those first that are worth most to act on.
        update_levels: the median update ratio of each layer in the window, where it is known.
        usual_norm: `clip_norm.usual_norm` of the window; 0 if it is not known.
    """

    verdicts: list[Verdict]
    update_levels: Mapping[str, float]
    usual_norm: float = 0.0


@dataclass(frozen=True)
class FrozenWindow:
    """An immutable copy of the contents of a `VerdictWindow`. Any thread may judge it.

    Attributes:
        layers: names, in forward order.
        offsets: index of each layer's first filter, (layers + 1,).
        rows: for each batch and each statistic, the values, (filters,).
        moved: Σ update ratio of each filter, (filters,).
        peaks: the highest level of each layer so far.
        is_complete: whether ``moved`` counts all steps since the start.
        nonfinite: the verdict on NaN and infinity; None without.
        coefficients: of each filter, (filters,); None if they are not known.
        usual_norm: the last one that is known of an earlier window; 0 without.
    """

    layers: Sequence[str]
    offsets: np.ndarray
    rows: Sequence[Rows]
    moved: np.ndarray
    peaks: Mapping[str, float]
    is_complete: bool
    nonfinite: Verdict | None
    coefficients: np.ndarray | None = None
    usual_norm: float = 0.0

    def judge(self, dead: np.ndarray | None = None) -> Judgment:
        """Return the verdicts.

        Args:
            dead: which filters are dead, bool (filters,); None while this is unknown.
        """
        if not self.layers:
            nothing = Verdict("dormant", "", NOTHING_WATCHED, 0.0, is_known=False)
            return Judgment([nothing], {})
        found = [] if self.nonfinite is None else [self.nonfinite]
        n_batches = len(self.rows)
        if n_batches < MIN_BATCHES:
            reason = f"{MIN_BATCHES - n_batches} more batches are needed to judge the filters"
            return Judgment([*found, Verdict("dormant", "", reason, 0.0, is_known=False)], {})
        means = self._layer_means("gradient")
        depth, norm = judge_gradient_flow(self.layers, means), self._usual_norm(means)
        if depth is not None:
            found.append(self._with_clip_norm(depth, norm))
        parts = [slice(int(a), int(b)) for a, b in pairwise(self.offsets)]
        magnitudes = mean_magnitudes(self._recent("activation"))
        levels = self._levels(parts)
        for layer, part in zip(self.layers, parts, strict=True):
            found += self._of_filters(layer, part, magnitudes[part], dead)
            movement = self._movement(layer, part, levels.get(layer))
            found += [] if movement is None else [movement]
        return Judgment(sorted(found, key=lambda verdict: -verdict.worth), levels, norm)

    def _of_filters(
        self, layer: str, part: slice, magnitudes: np.ndarray, dead: np.ndarray | None
    ) -> list[Verdict]:
        total = max(1, len(self.moved))
        is_dead = np.zeros(part.stop - part.start, bool) if dead is None else dead[part]
        found = []
        if is_dead.any():
            filters = tuple(np.flatnonzero(is_dead).tolist())
            evidence = f"{len(filters)} of {len(is_dead)} silent in the last {DEAD_BATCHES} batches"
            worth = 0.9 * len(filters) / total
            found.append(
                Verdict(
                    "dead", layer, evidence, 0.9, filters, remedy="remove", worth=worth,
                    alternatives=("reinitialize",),
                )
            )  # fmt: skip
        score = dormancy_scores(magnitudes)
        filters = tuple(np.flatnonzero((score <= DORMANT_SHARE) & ~is_dead).tolist())
        if filters:
            evidence = (
                f"{len(filters)} of {len(is_dead)} have at most {DORMANT_SHARE:.1%} of the layer's "
                f"mean activation over {len(self.rows)} batches"
            )
            worth = 0.7 * len(filters) / total
            found.append(
                Verdict(
                    "dormant", layer, evidence, 0.7, filters, remedy="reinitialize", worth=worth
                )
            )
        return found

    def _usual_norm(self, layer_means: np.ndarray) -> float:
        if self.coefficients is None:
            return 0.0
        return usual_norm(norm_bounds(self._recent("gradient"), self.coefficients), layer_means)

    def _with_clip_norm(self, verdict: Verdict, norm: float) -> Verdict:
        """Return a verdict on gradients with the norm at which to clip them, if that helps."""
        if "clip_gradient" not in verdict.alternatives:
            return verdict
        value, note = propose_clip_norm(norm or self.usual_norm, self.layers)
        return replace(verdict, clip_norm=value, clip_note=note)

    def most_active_filter(self, layer: str, without: Collection[int]) -> int:
        """Return the filter of a layer with the largest E|a|; -1 if that is unknown.

        Args:
            layer: the name of the layer.
            without: filters that do not count.
        """
        if layer not in self.layers or not self.rows:
            return -1
        index = list(self.layers).index(layer)
        filters = np.arange(self.offsets[index], self.offsets[index + 1])
        means = mean_magnitudes(self._recent("activation", filters))
        means[list(without)] = np.nan
        return int(np.nanargmax(means)) if np.nanmax(means, initial=0.0) > 0 else -1

    def _movement(self, layer: str, part: slice, level: float | None) -> Verdict | None:
        if level is None:
            return None
        peak = max(level, self.peaks.get(layer, 0.0))
        moved = float(np.median(self.moved[part]))
        return judge_weight_updates(layer, level, moved, peak, is_complete=self.is_complete)

    def _levels(self, parts: Sequence[slice]) -> dict[str, float]:
        """Return the median update ratio of each layer in which it was measured."""
        levels = {}
        for layer, recent in zip(self.layers, self._recent_ratios(parts), strict=True):
            finite = recent[np.isfinite(recent)]
            if len(finite):
                levels[layer] = float(np.median(finite))
        return levels

    def _recent(self, statistic: str, filters: np.ndarray | None = None) -> np.ndarray:
        """Return a statistic of all or some filters in the window, (batches, filters)."""
        rows = [row[statistic] for row in self.rows if statistic in row]
        if filters is not None:
            rows = [row[filters] for row in rows]
        n_filters = len(self.moved) if filters is None else len(filters)
        return np.array(rows).reshape(len(rows), n_filters)

    def _recent_ratios(self, parts: Sequence[slice]) -> list[np.ndarray]:
        """Return the update ratios of some filters of each layer, (batches, filters) each."""
        spacings = [max(1, -(-(part.stop - part.start) // MEDIAN_FILTERS)) for part in parts]
        some = [np.arange(p.start, p.stop, s) for p, s in zip(parts, spacings, strict=True)]
        recent = self._recent("update_ratio", np.concatenate([np.zeros(0, np.int64), *some]))
        return np.split(recent, np.cumsum([len(one) for one in some])[:-1], axis=1)

    def _layer_means(self, statistic: str) -> np.ndarray:
        """Return the mean of each layer in each batch of the window; NaN without filters."""
        rows = self._recent(statistic)
        counts = np.diff(self.offsets)
        means = np.full((len(rows), len(counts)), np.nan)
        starts = self.offsets[:-1][counts > 0]
        if len(starts) and len(rows):
            sums = np.add.reduceat(rows, starts, axis=1, dtype=np.float64)
            means[:, counts > 0] = sums / counts[counts > 0]
        return means
