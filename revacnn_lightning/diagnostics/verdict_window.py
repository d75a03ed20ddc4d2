"""Keeps the statistics of the last batches of a run, for verdicts."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from revacnn_lightning.diagnostics.verdicts import WINDOW, Verdict, judge_nonfinite_origin
from revacnn_lightning.diagnostics.window_verdicts import FrozenWindow, Judgment, Rows

__all__ = ["VerdictWindow"]


class VerdictWindow:
    """Keeps the statistics of the last batches, from which verdicts on the layers follow.

    Adding a batch costs two sums over the filters. All else is computed by `verdicts`, or by the
    `FrozenWindow` in another thread.
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
        self._is_all_measured = False  # the set holds every layer of this network
        self._coefficients: np.ndarray | None = None  # of each filter
        self._usual_norm = 0.0  # of the gradient; 0 if it is not known

    def update_structure(
        self,
        layers: Sequence[str],
        offsets: np.ndarray,
        previous_indices: np.ndarray,
        coefficients: np.ndarray | None = None,
    ) -> None:
        """Adopt another network.

        Args:
            layers: names, in forward order.
            offsets: index of each layer's first filter, (layers + 1,).
            previous_indices: previous index of each filter, -1 for new ones, (filters,).
            coefficients: how many each filter has, (filters,); None if that is not known.
        """
        self._layers, self._offsets, self._is_all_measured = list(layers), offsets, False
        self._coefficients = coefficients
        moved, kept = np.zeros(len(previous_indices)), previous_indices >= 0
        if len(self._moved):
            moved[kept] = self._moved[previous_indices[kept]]
        self._moved = moved
        self._rows.clear()
        self._nonfinite = None

    def scale_peak_update_level(self, layer: str, factor: float) -> None:
        """Scale the highest update level of a layer: an edit has scaled its learning rate."""
        if layer in self._peaks:
            self._peaks[layer] *= factor

    def add(self, step: int, rows: Rows, *, count: int = 1, is_sampled: bool = False) -> None:
        """Add a batch, or the mean of several.

        Args:
            step: the step of the last batch.
            rows: the values of each statistic, (filters,). They are kept and must not change.
            count: the number of batches whose mean this is.
            is_sampled: whether the update ratio is not measured at each optimizer step.
        """
        if not self._layers or any(len(row) != len(self._moved) for row in rows.values()):
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
            if not self._is_all_measured:
                self._measured |= {(n, s) for n in self._layers for s in ("activation", "gradient")}
                self._is_all_measured = True
        elif self._nonfinite is None:
            parts = [self._measured_parts(name, row) for name, row in
                     (("activation", activation), ("gradient", gradient))]  # fmt: skip
            self._nonfinite = judge_nonfinite_origin(self._layers, *parts)

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
        judgment = self.frozen_copy().judge(dead)
        self.record_levels(judgment)
        return judgment.verdicts

    def frozen_copy(self) -> FrozenWindow:
        """Return an immutable copy of what is kept."""
        return FrozenWindow(
            tuple(self._layers),
            self._offsets,
            tuple(self._rows),
            self._moved.copy(),
            dict(self._peaks),
            self._is_complete,
            self._nonfinite,
            self._coefficients,
            self._usual_norm,
        )

    def record_levels(self, judgment: Judgment) -> None:
        """Record the levels of a window, with which later verdicts compare."""
        for layer, level in judgment.update_levels.items():
            self._peaks[layer] = max(level, self._peaks.get(layer, 0.0))
        self._usual_norm = judgment.usual_norm or self._usual_norm
