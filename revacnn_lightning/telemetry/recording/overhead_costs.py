"""What each statistic has cost a batch, from how long the parts of the batch took."""

from __future__ import annotations

from collections.abc import Mapping, Set

from revacnn_lightning.telemetry.statistics import MAP_GRADIENTS

__all__ = ["shared_out"]


def shared_out(parts: Mapping[str, float], gathered: Set[str]) -> dict[str, float]:
    """Seconds of each statistic.

    Parts are of one statistic, whose name they have, but for two: ``maps`` is one pass over the
    maps for ``activation`` and, where that is gathered, ``firing``; ``map gradients`` one for those
    of `MAP_GRADIENTS` that are. These share it evenly.
    """
    costs = {name: seconds for name, seconds in parts.items() if name not in _SHARED}
    for part, statistics in _SHARED.items():
        sharing = sorted(statistics & gathered)
        for name in sharing:
            costs[name] = costs.get(name, 0.0) + parts.get(part, 0.0) / len(sharing)
    return costs


_SHARED = {"maps": frozenset({"activation", "firing"}), "map gradients": MAP_GRADIENTS}
