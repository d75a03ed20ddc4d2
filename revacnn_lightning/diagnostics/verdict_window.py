"""The statistics of the last batches of a run, and the verdicts that follow from them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from revacnn_lightning.diagnostics.dead_filters import DEAD_BATCHES
from revacnn_lightning.diagnostics.verdicts import (
    DORMANT_SHARE,
    MIN_BATCHES,
    WINDOW,
    Verdict,
    find_dormant,
    judge_depth,
    judge_movement,
    mean_magnitudes,
    nonfinite_origin,
)

__all__ = ["VerdictWindow"]

MEDIAN_FILTERS = 64  # of a wide layer, evenly spaced, whose median is about that of all

Rows = Mapping[str, np.ndarray]


class VerdictWindow:
    """Keeps what verdicts are made of, and makes them on request.

    Adding a batch costs two sums over the filters. All else is computed by `verdicts`.
    """

    def __init__(self) -> None:
        self._layers: list[str] = []
        self._offsets = np.zeros(1, np.int64)
        self._rows: deque[Rows] = deque(maxlen=WINDOW)
        self._moved = np.zeros(0)  # Σ update ratio of each filter
        self._peaks: dict[str, float] = {}  # by layer
        self._last_step = -1
        self._is_complete = True  # every batch since the first one of the run was added
        self._nonfinite: Verdict | None = None
        self._measured: set[tuple[str, str]] = set()

    def update_structure(
        self, layers: Sequence[str], offsets: np.ndarray, source: np.ndarray
    ) -> None:
        """Adopt another network.

        Args:
            layers: names, in forward order.
            offsets: index of each layer's first filter, (layers + 1,).
            source: previous index of each filter, -1 for new ones, (filters,).
        """
        self._layers, self._offsets = list(layers), offsets
        moved, kept = np.zeros(len(source)), source >= 0
        if len(self._moved):
            moved[kept] = self._moved[source[kept]]
        self._moved = moved
        self._rows.clear()
        self._nonfinite = None

    def add(self, step: int, rows: Rows, *, count: int = 1, is_sampled: bool = False) -> None:
        """Add a batch, or the mean of several.

        Args:
            step: of the last one.
            rows: of each statistic, (filters,).
            count: how many batches these are the mean of.
            is_sampled: whether the update ratio is not measured at each optimizer step.
        """
        if any(len(row) != len(self._moved) for row in rows.values()):
            return
        self._is_complete &= step == self._last_step + count and not is_sampled
        self._last_step = step
        self._rows.append(rows)
        ratios = rows.get("update_ratio")
        if ratios is not None:
            self._moved += count * np.where(np.isfinite(ratios), ratios, 0)
        self._note_nonfinite(rows)

    def _note_nonfinite(self, rows: Rows) -> None:
        """Keep the first verdict on NaN; a recovered network has none."""
        activation, gradient = rows.get("activation"), rows.get("gradient")
        if activation is None or gradient is None:
            return
        if np.isfinite(activation.sum() + gradient.sum()):
            self._nonfinite = None
            self._measured |= {(n, s) for n in self._layers for s in ("activation", "gradient")}
        elif self._nonfinite is None:
            parts = [self._measured_parts(name, row) for name, row in
                     (("activation", activation), ("gradient", gradient))]  # fmt: skip
            self._nonfinite = nonfinite_origin(self._layers, *parts)

    def _measured_parts(self, statistic: str, row: np.ndarray) -> list[np.ndarray]:
        """Return the row by layer; nothing of a layer that was never measured."""
        empty = np.zeros(0)
        return [
            empty if np.isnan(part).all() and (name, statistic) not in self._measured else part
            for name, part in zip(self._layers, self._split(row), strict=True)
        ]

    def _split(self, values: np.ndarray) -> list[np.ndarray]:
        return np.split(values, self._offsets[1:-1], axis=-1)

    # ---------------------------------------------------------------- verdicts

    def verdicts(self, dead: np.ndarray | None = None) -> list[Verdict]:
        """Return the verdicts, those first that are worth most to act on.

        Args:
            dead: which filters are dead, bool (filters,); None while this is unknown.
        """
        found = [] if self._nonfinite is None else [self._nonfinite]
        n_batches = len(self._rows)
        if n_batches < MIN_BATCHES:
            reason = f"{MIN_BATCHES - n_batches} more batches are needed to judge the filters"
            return [*found, Verdict("dormant", "", reason, 0.0, is_known=False)]
        depth = judge_depth(self._layers, self._layer_means("gradient"))
        found += [] if depth is None else [depth]
        parts = [slice(int(a), int(b)) for a, b in pairwise(self._offsets)]
        magnitudes = mean_magnitudes(self._recent("activation"))
        ratios = self._recent_ratios(parts)
        for layer, part, recent in zip(self._layers, parts, ratios, strict=True):
            found += self._of_filters(layer, part, magnitudes[part], dead)
            movement = self._movement(layer, part, recent)
            found += [] if movement is None else [movement]
        return sorted(found, key=lambda verdict: -verdict.worth)

    def _of_filters(
        self, layer: str, part: slice, magnitudes: np.ndarray, dead: np.ndarray | None
    ) -> list[Verdict]:
        total = max(1, len(self._moved))
        is_dead = np.zeros(part.stop - part.start, bool) if dead is None else dead[part]
        found = []
        if is_dead.any():
            filters = tuple(np.flatnonzero(is_dead).tolist())
            evidence = f"{len(filters)} of {len(is_dead)} silent in the last {DEAD_BATCHES} batches"
            worth = 0.9 * len(filters) / total
            found.append(
                Verdict("dead", layer, evidence, 0.9, filters, remedy="remove", worth=worth)
            )
        score = find_dormant(magnitudes)
        filters = tuple(np.flatnonzero((score <= DORMANT_SHARE) & ~is_dead).tolist())
        if filters:
            evidence = (
                f"{len(filters)} of {len(is_dead)} have at most {DORMANT_SHARE:.1%} of the layer's "
                f"mean activation over {len(self._rows)} batches"
            )
            worth = 0.7 * len(filters) / total
            found.append(
                Verdict("dormant", layer, evidence, 0.7, filters, remedy="restart", worth=worth)
            )
        return found

    def _movement(self, layer: str, part: slice, recent: np.ndarray) -> Verdict | None:
        finite = recent[np.isfinite(recent)]
        if not len(finite):
            return None
        level = float(np.median(finite))
        peak = self._peaks[layer] = max(level, self._peaks.get(layer, 0.0))
        moved = float(np.median(self._moved[part]))
        return judge_movement(layer, level, moved, peak, is_complete=self._is_complete)

    def _recent(self, statistic: str, filters: np.ndarray | None = None) -> np.ndarray:
        """Return a statistic of all or some filters in the window, (batches, filters)."""
        rows = [row[statistic] for row in self._rows if statistic in row]
        if filters is not None:
            rows = [row[filters] for row in rows]
        n_filters = len(self._moved) if filters is None else len(filters)
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
        counts = np.diff(self._offsets)
        means = np.full((len(rows), len(counts)), np.nan)
        starts = self._offsets[:-1][counts > 0]
        if len(starts) and len(rows):
            sums = np.add.reduceat(rows, starts, axis=1, dtype=np.float64)
            means[:, counts > 0] = sums / counts[counts > 0]
        return means
