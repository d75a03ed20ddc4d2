"""Findings about the filters of a layer: their wording, and those that statistics alone reveal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

__all__ = ["DeadZeroNonfiniteCounter", "FindingCounts", "FindingKind", "describe_finding"]

FindingKind = Literal["near_duplicates", "dead", "zero", "nonfinite", "single_color"]
FindingCounts = dict[FindingKind, int]  # affected filters of a layer

WORDS: dict[FindingKind, str] = {
    "near_duplicates": "near duplicates",
    "dead": "dead",
    "zero": "all zero",
    "nonfinite": "not finite",
    "single_color": "single-color",
}


def describe_finding(kind: FindingKind, count: int) -> str:
    """Return a finding in words, such as ``3 dead``."""
    return f"{count} {WORDS[kind]}"


class DeadZeroNonfiniteCounter:
    """Counts the dead, zero and non-finite filters by the statistics of a batch.

    A weight norm that is NaN means coefficients that are not finite only in layers whose norm was
    measured before: in others, it is not measured.
    """

    def __init__(self) -> None:
        self._measured: set[str] = set()  # layers

    def count(
        self,
        layer_names: Sequence[str],
        layer_offsets: np.ndarray,
        norms: np.ndarray | None,
        dead_mask: np.ndarray | None,
    ) -> dict[str, FindingCounts]:
        """Return the counts by layer: all that can be known, zeros included.

        Args:
            layer_names: the names of the layers.
            layer_offsets: index of each layer's first filter, (layers + 1,).
            norms: weight norm of each filter, (filters,); None if it was not recorded.
            dead_mask: which filters are dead, bool (filters,); None while this is unknown.
        """
        counts: dict[str, FindingCounts] = {}
        for i, layer in enumerate(layer_names):
            part = slice(int(layer_offsets[i]), int(layer_offsets[i + 1]))
            found = counts[layer] = {}
            if dead_mask is not None:
                found["dead"] = int(dead_mask[part].sum())
            if norms is not None and self._is_measured(layer, norms[part]):
                found["zero"] = int((norms[part] == 0).sum())
                found["nonfinite"] = int((~np.isfinite(norms[part])).sum())
        return counts

    def _is_measured(self, layer: str, norms: np.ndarray) -> bool:
        if not np.isnan(norms).all():
            self._measured.add(layer)
        return layer in self._measured
