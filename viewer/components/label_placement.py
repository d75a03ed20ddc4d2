"""Spreads the labels of a chart so that none overlaps another."""

from __future__ import annotations

import numpy as np

__all__ = ["spread_labels"]


def spread_labels(positions: np.ndarray, spacing: float, height: float) -> np.ndarray:
    """Return positions (n,) near the given ones, in the same order, at least ``spacing`` apart.

    Labels that would overlap are centered on their mean position. All labels stay between 0 and
    ``height`` if they fit.
    """
    order = np.argsort(positions, kind="stable")
    groups: list[tuple[float, int]] = []  # center and number of labels, in ascending order
    for position in positions[order]:
        groups.append((_clamp_center(float(position), spacing, height), 1))
        while len(groups) > 1:
            (a, n), (b, m) = groups[-2:]
            if b - a >= spacing * (n + m) / 2:
                break
            center = _clamp_center((a * n + b * m) / (n + m), spacing * (n + m), height)
            groups[-2:] = [(center, n + m)]
    spread = [center + spacing * (i - (n - 1) / 2) for center, n in groups for i in range(n)]
    found = np.empty(len(positions))
    found[order] = spread
    return found


def _clamp_center(center: float, size: float, height: float) -> float:
    """Move the center of an interval of this size so that the interval lies in 0 to height."""
    return max(size / 2, min(height - size / 2, center))
