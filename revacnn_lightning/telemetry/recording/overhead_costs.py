"""The cost of each statistic, from the times of the parts of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Set

from revacnn_lightning.telemetry.statistics import MAP_GRADIENT_STATISTICS

__all__ = ["cost_per_statistic"]

_SHARED_PARTS = {
    "maps": frozenset({"activation", "firing"}),
    "map gradients": MAP_GRADIENT_STATISTICS,
}


def cost_per_statistic(
    seconds_by_part: Mapping[str, float], sampled_statistics: Set[str]
) -> dict[str, float]:
    """Return the seconds spent on each statistic.

    Most parts belong to one statistic and have its name. Two are a single pass for several
    statistics: ``maps`` for ``activation`` and ``firing``, ``map gradients`` for
    `MAP_GRADIENT_STATISTICS`. Those of them that are sampled share its time evenly.

    Args:
        seconds_by_part: seconds of each part of the batch.
        sampled_statistics: the statistics of the batch.
    """
    costs = {
        name: seconds for name, seconds in seconds_by_part.items() if name not in _SHARED_PARTS
    }
    for part, statistics in _SHARED_PARTS.items():
        sharing = sorted(statistics & sampled_statistics)
        for name in sharing:
            costs[name] = costs.get(name, 0.0) + seconds_by_part.get(part, 0.0) / len(sharing)
    return costs
